// A kind of scaling is one row of kKinds.

#include "engine/checkpoint/hf_rope.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace swaa {
namespace {

using Json = nlohmann::json;

constexpr double kDefaultTheta = 10000;  // transformers'

// Where the values lie: the object of rope_scaling or rope_parameters, and config.json itself.
struct Place {
  const HfObject& rope;
  const HfObject& config;
};

// The context that the model was trained with. Some files name it beside the object.
absl::StatusOr<double> OriginalContext(const Place& place, const ModelConfig& config) {
  constexpr const char* kKey = "original_max_position_embeddings";
  if (place.config.Find(kKey) != nullptr) return place.config.Number(kKey, std::nullopt);
  return place.rope.Number(kKey, config.max_context_tokens);
}

absl::Status ReadNone(const Place&, ModelConfig*) { return absl::OkStatus(); }

absl::Status ReadLinear(const Place& place, ModelConfig* config) {
  LinearRopeScaling scaling;
  SWAA_ASSIGN_OR_RETURN(scaling.factor, place.rope.Number("factor", std::nullopt));
  config->rope_scaling = scaling;
  return absl::OkStatus();
}

absl::Status ReadLlama3(const Place& place, ModelConfig* config) {
  Llama3RopeScaling scaling;
  SWAA_ASSIGN_OR_RETURN(scaling.factor, place.rope.Number("factor", std::nullopt));
  SWAA_ASSIGN_OR_RETURN(scaling.low_freq_factor,
                        place.rope.Number("low_freq_factor", std::nullopt));
  SWAA_ASSIGN_OR_RETURN(scaling.high_freq_factor,
                        place.rope.Number("high_freq_factor", std::nullopt));
  SWAA_ASSIGN_OR_RETURN(scaling.original_context, OriginalContext(place, *config));
  config->rope_scaling = scaling;
  return absl::OkStatus();
}

// By how much YaRN sharpens attention where nothing is said.
double YarnMagnitude(double factor, double scale) {
  return factor <= 1 ? 1 : 0.1 * scale * std::log(factor) + 1;
}

// A number that zero switches off, as absence does.
absl::StatusOr<double> NumberUnlessZero(const HfObject& object, const char* key, double otherwise) {
  SWAA_ASSIGN_OR_RETURN(const double value, object.Number(key, otherwise));
  return value == 0 ? otherwise : value;
}

absl::Status ReadYarn(const Place& place, ModelConfig* config) {
  const HfObject& rope = place.rope;
  YarnRopeScaling scaling;
  SWAA_ASSIGN_OR_RETURN(scaling.original_context, OriginalContext(place, *config));
  SWAA_ASSIGN_OR_RETURN(
      scaling.factor,
      rope.Number("factor", config->max_context_tokens / std::max(scaling.original_context, 1.0)));
  SWAA_ASSIGN_OR_RETURN(scaling.beta_fast, NumberUnlessZero(rope, "beta_fast", scaling.beta_fast));
  SWAA_ASSIGN_OR_RETURN(scaling.beta_slow, NumberUnlessZero(rope, "beta_slow", scaling.beta_slow));
  SWAA_ASSIGN_OR_RETURN(scaling.truncate, rope.Bool("truncate", true));
  SWAA_ASSIGN_OR_RETURN(const double mscale, rope.Number("mscale", 0.0));
  SWAA_ASSIGN_OR_RETURN(const double mscale_all_dim, rope.Number("mscale_all_dim", 0.0));
  const double implied =
      mscale != 0 && mscale_all_dim != 0
          ? YarnMagnitude(scaling.factor, mscale) / YarnMagnitude(scaling.factor, mscale_all_dim)
          : YarnMagnitude(scaling.factor, 1);
  SWAA_ASSIGN_OR_RETURN(scaling.attention_factor, rope.Number("attention_factor", implied));
  config->rope_scaling = scaling;
  // Qwen's makers turn YaRN on without touching max_position_embeddings.
  const double reach = scaling.factor * scaling.original_context;
  if (reach > config->max_context_tokens && reach <= INT32_MAX) {
    config->max_context_tokens = static_cast<int32_t>(reach);
  }
  return absl::OkStatus();
}

struct Kind {
  std::string_view name;
  absl::Status (*read)(const Place& place, ModelConfig* config);
};
constexpr Kind kKinds[] = {
    {"default", ReadNone}, {"linear", ReadLinear}, {"llama3", ReadLlama3}, {"yarn", ReadYarn}};

absl::Status ReadScaling(const Place& place, ModelConfig* config) {
  // Older files call the kind "type".
  const char* key = place.rope.Find("rope_type") != nullptr ? "rope_type" : "type";
  const Json* type = place.rope.Find(key);
  std::string known;
  for (const Kind& kind : kKinds) {
    if (type == nullptr || *type == kind.name) return kind.read(place, config);
    absl::StrAppend(&known, known.empty() ? "" : ", ", std::string(kind.name));
  }
  return place.rope.Unsupported(
      key, absl::StrCat(HfObject::Shown(*type), " is not supported; supported: ", known,
                        "; with \"default\" the model serves its trained context"));
}

}  // namespace

absl::Status ReadHfRope(const HfObject& object, ModelConfig* config) {
  SWAA_ASSIGN_OR_RETURN(config->rope_theta, object.Number("rope_theta", kDefaultTheta));
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const Json* value = object.Find(key);
    if (value == nullptr) continue;
    if (!value->is_object()) return object.Wrong(key, "is not an object");
    if (value->empty()) continue;
    const HfObject rope(*value, absl::StrCat(object.place(), ": ", key));
    SWAA_ASSIGN_OR_RETURN(config->rope_theta, rope.Number("rope_theta", config->rope_theta));
    if (const Json* part = rope.Find("partial_rotary_factor"); part != nullptr && *part != 1) {
      return rope.Unsupported("partial_rotary_factor",
                              absl::StrCat(HfObject::Shown(*part), " is not supported; 1 is"));
    }
    return ReadScaling({rope, object}, config);
  }
  return absl::OkStatus();
}

}  // namespace swaa
