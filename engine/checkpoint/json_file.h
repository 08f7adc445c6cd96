// JSON texts of a model's folder.

#ifndef SWAA_ENGINE_CHECKPOINT_JSON_FILE_H_
#define SWAA_ENGINE_CHECKPOINT_JSON_FILE_H_

#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"

namespace swaa {

// An object. INVALID_ARGUMENT with `file`, offset and what is wrong: no JSON, not UTF-8, an object
// with the same key twice, nested deeper than configurations are, or no object at all.
absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view text, const std::string& file);

}  // namespace swaa

#endif  // SWAA_ENGINE_CHECKPOINT_JSON_FILE_H_
