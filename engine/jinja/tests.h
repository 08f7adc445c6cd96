// The tests: value is name(arguments).

#ifndef SWAA_ENGINE_JINJA_TESTS_H_
#define SWAA_ENGINE_JINJA_TESTS_H_

#include <string_view>

#include "engine/jinja/ast.h"

namespace swaa::jinja {

// Null: there is none of that name.
TestFunction FindTest(std::string_view name);

}  // namespace swaa::jinja

#endif  // SWAA_ENGINE_JINJA_TESTS_H_
