// generation_config.json.

#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/checkpoint/hf_config.h"
#include "engine/checkpoint/hf_object.h"

namespace swaa {
namespace {

using Json = nlohmann::json;

absl::StatusOr<std::optional<float>> InRange(const HfObject& object, const char* key, double least,
                                             double most) {
  SWAA_ASSIGN_OR_RETURN(const double value, object.Number(key, least));
  if (object.Find(key) == nullptr) return std::nullopt;
  if (!(value >= least && value <= most)) {
    return object.Wrong(key, absl::StrCat(value, " is not between ", least, " and ", most));
  }
  return static_cast<float>(value);
}

}  // namespace

absl::StatusOr<GenerationDefaults> ReadGenerationDefaults(const Json& json,
                                                          const std::string& file) {
  const HfObject object(json, file);
  constexpr double kMost = std::numeric_limits<float>::max();
  GenerationDefaults defaults;
  SWAA_ASSIGN_OR_RETURN(defaults.temperature, InRange(object, "temperature", 0, kMost));
  SWAA_ASSIGN_OR_RETURN(defaults.top_p, InRange(object, "top_p", 1e-6, 1));
  SWAA_ASSIGN_OR_RETURN(defaults.min_p, InRange(object, "min_p", 0, 1));
  SWAA_ASSIGN_OR_RETURN(defaults.repetition_penalty,
                        InRange(object, "repetition_penalty", 1e-6, kMost));
  if (const Json* top_k = object.Find("top_k"); top_k != nullptr) {
    const bool fits =
        top_k->is_number_integer() && *top_k >= 0 && *top_k <= std::numeric_limits<int32_t>::max();
    if (!fits) return object.Wrong("top_k", absl::StrCat(HfObject::Shown(*top_k), " is no count"));
    defaults.top_k = top_k->get<uint32_t>();
  }
  return defaults;
}

absl::StatusOr<std::vector<int32_t>> ReadEosIds(const Json& json, int32_t vocab_size,
                                                const std::string& file) {
  const HfObject object(json, file);
  std::vector<int32_t> ids;
  const Json* value = object.Find("eos_token_id");
  if (value == nullptr) return ids;
  const Json list = value->is_array() ? *value : Json::array({*value});
  for (const Json& id : list) {
    if (!id.is_number_integer() || id < 0 || id >= vocab_size) {
      return object.Wrong("eos_token_id", absl::StrCat(HfObject::Shown(id),
                                                       " is no token; there are ", vocab_size));
    }
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

}  // namespace swaa
