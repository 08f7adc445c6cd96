// Python's operators over values. They throw Failure where Python raises.

#ifndef SWAA_ENGINE_JINJA_OPERATORS_H_
#define SWAA_ENGINE_JINJA_OPERATORS_H_

#include "engine/jinja/ast.h"
#include "engine/jinja/value.h"

namespace swaa::jinja {

// + - * / // % **
Value Arithmetic(Operator op, const Value& left, const Value& right, Budget& budget);
Value Negate(const Value& value);
Value Plus(const Value& value);

bool IsEqual(const Value& left, const Value& right, Budget& budget);
bool IsLess(const Value& left, const Value& right, Budget& budget);
// == != < <= > >= in, not in
bool Compare(Operator op, const Value& left, const Value& right, Budget& budget);
bool Contains(const Value& container, const Value& item, Budget& budget);

// The printed values one after another.
Text Concatenate(const std::vector<Value>& parts, Budget& budget);
// & < > ' " as HTML writes them; Markup as it is.
Text EscapeHtml(const Text& text, Budget& budget);

// object[begin:end:step]; absent parts are none.
Value Slice(const Value& object, const Value& begin, const Value& end, const Value& step,
            Budget& budget);

// Integers are those of 64 bits; others fail.
int64_t CheckedAdd(int64_t left, int64_t right);
int64_t CheckedMultiply(int64_t left, int64_t right);

}  // namespace swaa::jinja

#endif  // SWAA_ENGINE_JINJA_OPERATORS_H_
