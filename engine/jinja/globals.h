// The functions that every template can call.

#ifndef SWAA_ENGINE_JINJA_GLOBALS_H_
#define SWAA_ENGINE_JINJA_GLOBALS_H_

#include <optional>
#include <string_view>

#include "engine/jinja/value.h"

namespace swaa::jinja {

// range, dict, namespace, cycler, joiner, raise_exception, strftime_now. Nothing: no such name.
std::optional<Value> FindGlobal(std::string_view name);

}  // namespace swaa::jinja

#endif  // SWAA_ENGINE_JINJA_GLOBALS_H_
