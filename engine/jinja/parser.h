// Reads a template into its syntax tree.

#ifndef SWAA_ENGINE_JINJA_PARSER_H_
#define SWAA_ENGINE_JINJA_PARSER_H_

#include <string_view>

#include "engine/jinja/ast.h"
#include "engine/jinja/budget.h"

namespace swaa::jinja {

// Throws Failure with a line: INVALID_ARGUMENT for what Jinja refuses too, UNIMPLEMENTED for what
// it has and this library has not (files, inheritance, recursive loops, some filters).
Body Parse(std::string_view source, const Limits& limits);

}  // namespace swaa::jinja

#endif  // SWAA_ENGINE_JINJA_PARSER_H_
