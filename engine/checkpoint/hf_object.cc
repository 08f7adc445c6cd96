// Values of a JSON object, checked.

#include "engine/checkpoint/hf_object.h"

#include "absl/strings/str_cat.h"
#include "engine/checkpoint/text_checks.h"

namespace swaa {

using Json = nlohmann::json;

const Json* HfObject::Find(const char* key) const {
  const auto found = json_.find(key);
  return found == json_.end() || found->is_null() ? nullptr : &*found;
}

bool HfObject::IsNull(const char* key) const {
  const auto found = json_.find(key);
  return found != json_.end() && found->is_null();
}

absl::Status HfObject::Wrong(const char* key, std::string_view problem) const {
  return absl::InvalidArgumentError(absl::StrCat(place_, ": ", key, ": ", std::string(problem)));
}

absl::Status HfObject::Unsupported(const char* key, std::string_view problem) const {
  return absl::UnimplementedError(absl::StrCat(place_, ": ", key, ": ", std::string(problem)));
}

absl::StatusOr<int32_t> HfObject::Size(const char* key, int64_t most,
                                       std::optional<int32_t> fallback) const {
  const Json* value = Find(key);
  if (value == nullptr && fallback.has_value()) return *fallback;
  if (value == nullptr) return Wrong(key, "is missing");
  const bool fits = value->is_number_integer() && *value >= 1 && *value <= most;
  if (!fits) {
    return Wrong(key, absl::StrCat(Shown(*value), " is not an integer between 1 and ", most));
  }
  return value->get<int32_t>();
}

absl::StatusOr<double> HfObject::Number(const char* key, std::optional<double> fallback) const {
  const Json* value = Find(key);
  if (value == nullptr && fallback.has_value()) return *fallback;
  if (value == nullptr) return Wrong(key, "is missing");
  if (!value->is_number()) return Wrong(key, absl::StrCat(Shown(*value), " is not a number"));
  return value->get<double>();
}

absl::StatusOr<bool> HfObject::Bool(const char* key, bool fallback) const {
  const Json* value = Find(key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) return Wrong(key, absl::StrCat(Shown(*value), " is not a bool"));
  return value->get<bool>();
}

std::string HfObject::Shown(const Json& value) {
  return Quoted(value.dump(-1, ' ', true, Json::error_handler_t::replace));
}

}  // namespace swaa
