// JSON as a template's input.

#ifndef SWAA_ENGINE_JINJA_JSON_H_
#define SWAA_ENGINE_JINJA_JSON_H_

#include <string_view>

#include "absl/status/statusor.h"
#include "engine/jinja/value.h"

namespace swaa::jinja {

// The value that `json` stands for, its texts marked as input. INVALID_ARGUMENT: it is no JSON, an
// integer needs more than 64 bits, or it is nested deeper than 100 levels.
absl::StatusOr<Value> ParseJson(std::string_view json);

}  // namespace swaa::jinja

#endif  // SWAA_ENGINE_JINJA_JSON_H_
