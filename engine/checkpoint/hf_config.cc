// A model family is one row of kFamilies.

#include "engine/checkpoint/hf_config.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/checkpoint/text_checks.h"
#include "engine/checkpoint/validate_config.h"

namespace swaa {
namespace {

using Json = nlohmann::json;

struct Family {
  std::string_view model_type;
  bool qkv_bias;  // where attention_bias is absent
  bool qk_norm;
};
constexpr Family kFamilies[] = {
    {"llama", false, false},
};

struct SizeKey {
  const char* name;
  int32_t ModelConfig::*member;
  int64_t most;
};
constexpr SizeKey kSizeKeys[] = {
    {"num_hidden_layers", &ModelConfig::num_layers, kMaxLayers},
    {"hidden_size", &ModelConfig::hidden, kMaxHidden},
    {"intermediate_size", &ModelConfig::ffn_width, kMaxFfnWidth},
    {"num_attention_heads", &ModelConfig::heads, kMaxHeads},
    {"vocab_size", &ModelConfig::vocab_size, kMaxVocab},
    {"max_position_embeddings", &ModelConfig::max_context_tokens, kMaxContext},
};

// Features that the transformer does not have: where the key is present, the value must be this
// one.
struct NeutralKey {
  const char* name;
  const char* value;  // JSON
};
constexpr NeutralKey kNeutralKeys[] = {
    {"hidden_act", "\"silu\""},
    {"mlp_bias", "false"},
    {"partial_rotary_factor", "1.0"},
    {"quantization_config", "null"},
};

// Reads one object's values; null counts as absent, as in transformers.
class Object {
 public:
  Object(const Json& json, std::string place) : json_(json), place_(std::move(place)) {}

  const Json* Find(const char* key) const {
    const auto found = json_.find(key);
    return found == json_.end() || found->is_null() ? nullptr : &*found;
  }

  absl::Status Wrong(const char* key, std::string_view problem) const {
    return absl::InvalidArgumentError(absl::StrCat(place_, ": ", key, ": ", std::string(problem)));
  }
  absl::Status Unsupported(const char* key, std::string_view problem) const {
    return absl::UnimplementedError(absl::StrCat(place_, ": ", key, ": ", std::string(problem)));
  }

  absl::StatusOr<int32_t> Size(const char* key, int64_t most,
                               std::optional<int32_t> fallback = std::nullopt) const {
    const Json* value = Find(key);
    if (value == nullptr && fallback.has_value()) return *fallback;
    if (value == nullptr) return Wrong(key, "is missing");
    const bool fits = value->is_number_integer() && *value >= 1 && *value <= most;
    if (!fits) {
      return Wrong(key, absl::StrCat(Shown(*value), " is not an integer between 1 and ", most));
    }
    return value->get<int32_t>();
  }

  absl::StatusOr<double> Number(const char* key, std::optional<double> fallback) const {
    const Json* value = Find(key);
    if (value == nullptr && fallback.has_value()) return *fallback;
    if (value == nullptr) return Wrong(key, "is missing");
    if (!value->is_number()) return Wrong(key, absl::StrCat(Shown(*value), " is not a number"));
    return value->get<double>();
  }

  absl::StatusOr<bool> Bool(const char* key, bool fallback) const {
    const Json* value = Find(key);
    if (value == nullptr) return fallback;
    if (!value->is_boolean()) return Wrong(key, absl::StrCat(Shown(*value), " is not a bool"));
    return value->get<bool>();
  }

  static std::string Shown(const Json& value) {
    return Quoted(value.dump(-1, ' ', true, Json::error_handler_t::replace));
  }

 private:
  const Json& json_;
  const std::string place_;
};

absl::StatusOr<Family> ReadFamily(const Object& object) {
  const Json* type = object.Find("model_type");
  if (type == nullptr || !type->is_string()) return object.Wrong("model_type", "is missing");
  std::string known;
  for (const Family& family : kFamilies) {
    if (type->get_ref<const std::string&>() == family.model_type) return family;
    absl::StrAppend(&known, known.empty() ? "" : ", ", std::string(family.model_type));
  }
  return object.Unsupported(
      "model_type", absl::StrCat(Object::Shown(*type), " is not supported; supported: ", known));
}

absl::Status RefuseFeatures(const Object& object) {
  for (const NeutralKey& key : kNeutralKeys) {
    const Json* value = object.Find(key.name);
    if (value == nullptr || *value == Json::parse(key.value)) continue;
    return object.Unsupported(
        key.name, absl::StrCat(Object::Shown(*value), " is not supported; ", key.value, " is"));
  }
  return absl::OkStatus();
}

absl::Status ReadScaling(const Object& rope, ModelConfig* config) {
  // Older files call the kind "type".
  const char* key = rope.Find("rope_type") != nullptr ? "rope_type" : "type";
  const Json* type = rope.Find(key);
  if (type == nullptr || *type == "default") return absl::OkStatus();
  if (*type != "llama3") {
    return rope.Unsupported(
        key, absl::StrCat(Object::Shown(*type), " is not supported; default and llama3 are"));
  }
  Llama3RopeScaling scaling;
  SWAA_ASSIGN_OR_RETURN(scaling.factor, rope.Number("factor", std::nullopt));
  SWAA_ASSIGN_OR_RETURN(scaling.low_freq_factor, rope.Number("low_freq_factor", std::nullopt));
  SWAA_ASSIGN_OR_RETURN(scaling.high_freq_factor, rope.Number("high_freq_factor", std::nullopt));
  SWAA_ASSIGN_OR_RETURN(scaling.original_context,
                        rope.Number("original_max_position_embeddings", std::nullopt));
  config->rope_scaling = scaling;
  return absl::OkStatus();
}

// rope_theta and rope_scaling beside each other, or both in rope_parameters (transformers 5).
absl::Status ReadRope(const Object& object, const std::string& file, ModelConfig* config) {
  SWAA_ASSIGN_OR_RETURN(config->rope_theta, object.Number("rope_theta", 10000.0));
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const Json* value = object.Find(key);
    if (value == nullptr) continue;
    if (!value->is_object()) return object.Wrong(key, "is not an object");
    const Object rope(*value, absl::StrCat(file, ": ", key));
    SWAA_ASSIGN_OR_RETURN(config->rope_theta, rope.Number("rope_theta", config->rope_theta));
    SWAA_RETURN_IF_ERROR(ReadScaling(rope, config));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<float>> InRange(const Object& object, const char* key, double least,
                                             double most) {
  SWAA_ASSIGN_OR_RETURN(const double value, object.Number(key, least));
  if (object.Find(key) == nullptr) return std::nullopt;
  if (!(value >= least && value <= most)) {
    return object.Wrong(key, absl::StrCat(value, " is not between ", least, " and ", most));
  }
  return static_cast<float>(value);
}

}  // namespace

absl::StatusOr<ModelConfig> ReadHfConfig(const Json& json, const std::string& file) {
  const Object object(json, file);
  SWAA_ASSIGN_OR_RETURN(const Family family, ReadFamily(object));
  SWAA_RETURN_IF_ERROR(RefuseFeatures(object));
  ModelConfig config;
  config.architecture = std::string(family.model_type);
  config.qk_norm = family.qk_norm;
  if (const Json* name = object.Find("_name_or_path"); name != nullptr && name->is_string()) {
    config.name = name->get<std::string>();
  }
  for (const SizeKey& key : kSizeKeys) {
    SWAA_ASSIGN_OR_RETURN(config.*key.member, object.Size(key.name, key.most));
  }
  SWAA_ASSIGN_OR_RETURN(config.kv_heads,
                        object.Size("num_key_value_heads", kMaxHeads, config.heads));
  if (object.Find("head_dim") == nullptr && config.hidden % config.heads != 0) {
    return object.Wrong("num_attention_heads",
                        absl::StrCat(config.heads, " does not divide hidden_size ", config.hidden,
                                     ", and head_dim is missing"));
  }
  SWAA_ASSIGN_OR_RETURN(config.head_dim,
                        object.Size("head_dim", kMaxHeadDim, config.hidden / config.heads));
  SWAA_ASSIGN_OR_RETURN(const double epsilon, object.Number("rms_norm_eps", std::nullopt));
  config.norm_epsilon = static_cast<float>(epsilon);
  SWAA_ASSIGN_OR_RETURN(config.tied_embeddings, object.Bool("tie_word_embeddings", false));
  SWAA_ASSIGN_OR_RETURN(config.qkv_bias, object.Bool("attention_bias", family.qkv_bias));
  SWAA_RETURN_IF_ERROR(ReadRope(object, file, &config));
  SWAA_RETURN_IF_ERROR(ValidateConfig(config, file));
  return config;
}

absl::StatusOr<GenerationDefaults> ReadGenerationDefaults(const Json& json,
                                                          const std::string& file) {
  const Object object(json, file);
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
    if (!fits) return object.Wrong("top_k", absl::StrCat(Object::Shown(*top_k), " is no count"));
    defaults.top_k = top_k->get<uint32_t>();
  }
  return defaults;
}

absl::StatusOr<std::vector<int32_t>> ReadEosIds(const Json& json, int32_t vocab_size,
                                                const std::string& file) {
  const Object object(json, file);
  std::vector<int32_t> ids;
  const Json* value = object.Find("eos_token_id");
  if (value == nullptr) return ids;
  const Json list = value->is_array() ? *value : Json::array({*value});
  for (const Json& id : list) {
    if (!id.is_number_integer() || id < 0 || id >= vocab_size) {
      return object.Wrong("eos_token_id",
                          absl::StrCat(Object::Shown(id), " is no token; there are ", vocab_size));
    }
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

}  // namespace swaa
