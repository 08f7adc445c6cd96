// Python's arithmetic of numbers: + - * / // % **. Throws Failure where Python raises, and where an
// integer needs more than 64 bits.

#ifndef SWAA_ENGINE_JINJA_ARITHMETIC_H_
#define SWAA_ENGINE_JINJA_ARITHMETIC_H_

#include <cstdint>

#include "engine/jinja/ast.h"
#include "engine/jinja/value.h"

namespace swaa::jinja {

Value IntegerArithmetic(Operator op, int64_t left, int64_t right);
Value FloatArithmetic(Operator op, double left, double right);

}  // namespace swaa::jinja

#endif  // SWAA_ENGINE_JINJA_ARITHMETIC_H_
