// What config.json says of a model; its family's row in family.cc says the rest.

#include "engine/checkpoint/hf_config.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/checkpoint/family.h"
#include "engine/checkpoint/hf_object.h"
#include "engine/checkpoint/hf_rope.h"
#include "engine/checkpoint/validate_config.h"

namespace swaa {
namespace {

using Json = nlohmann::json;

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

absl::StatusOr<const Family*> ReadFamily(const HfObject& object) {
  const Json* type = object.Find("model_type");
  if (type == nullptr || !type->is_string()) return object.Wrong("model_type", "is missing");
  const Family* family = FindHfFamily(type->get_ref<const std::string&>());
  if (family != nullptr) return family;
  return object.Unsupported(
      "model_type",
      absl::StrCat(HfObject::Shown(*type), " is not supported; supported: ", HfFamilyNames()));
}

absl::Status RefuseFeatures(const HfObject& object) {
  for (const NeutralKey& key : kNeutralKeys) {
    const Json* value = object.Find(key.name);
    if (value == nullptr || *value == Json::parse(key.value)) continue;
    return object.Unsupported(
        key.name, absl::StrCat(HfObject::Shown(*value), " is not supported; ", key.value, " is"));
  }
  return absl::OkStatus();
}

// The first layer that the makers let see a window only, as transformers 5 finds it.
absl::StatusOr<std::optional<int32_t>> FirstSlidingLayer(const HfObject& object,
                                                         const Family& family,
                                                         const ModelConfig& config) {
  constexpr double kDefaultFirst = 28;
  SWAA_ASSIGN_OR_RETURN(const double stated, object.Number("max_window_layers", kDefaultFirst));
  auto first = static_cast<int32_t>(std::clamp<double>(stated, 0, config.num_layers));
  if (family.moe) first = 0;  // its layers are all alike
  if (const Json* types = object.Find("layer_types"); types != nullptr && !family.moe) {
    const bool sound = types->is_array() && types->size() == static_cast<size_t>(config.num_layers);
    if (!sound) {
      return object.Wrong("layer_types", absl::StrCat("is not a list of ", config.num_layers));
    }
    first = config.num_layers;
    for (int32_t layer = config.num_layers - 1; layer >= 0; --layer) {
      if ((*types)[layer] != "full_attention") first = layer;
    }
  }
  return first < config.num_layers ? std::optional(first) : std::nullopt;
}

// Which keys a layer sees is each request's recipe, and full attention what they all start from: a
// model that was trained with windows has no such thing.
absl::Status RefuseWindows(const HfObject& object, const Family& family,
                           const ModelConfig& config) {
  constexpr const char* kSwitch = "use_sliding_window";
  constexpr int32_t kDefaultWindow = 4096;
  SWAA_ASSIGN_OR_RETURN(const bool used, object.Bool(kSwitch, false));
  if (!used || object.IsNull("sliding_window")) return absl::OkStatus();
  SWAA_ASSIGN_OR_RETURN(const int32_t window,
                        object.Size("sliding_window", kMaxContext, kDefaultWindow));
  SWAA_ASSIGN_OR_RETURN(const std::optional<int32_t> first,
                        FirstSlidingLayer(object, family, config));
  if (!first.has_value() || window >= config.max_context_tokens) return absl::OkStatus();
  return object.Unsupported(
      kSwitch, absl::StrCat("true with a sliding_window of ", window, " tokens from layer ", *first,
                            " on is not supported: a request's recipe says which keys a layer "
                            "sees, and full attention would not be what this model was trained "
                            "with; set it to false to serve the model all the same"));
}

absl::StatusOr<bool> HasBias(const HfObject& object, Bias bias) {
  if (bias != Bias::kAsStated) return bias == Bias::kAlways;
  return object.Bool("attention_bias", false);
}

absl::Status ReadHeads(const HfObject& object, const Family& family, ModelConfig* config) {
  SWAA_ASSIGN_OR_RETURN(config->kv_heads,
                        object.Size("num_key_value_heads", kMaxHeads, config->heads));
  const int32_t fallback =
      family.hf_head_dim != 0 ? family.hf_head_dim : config->hidden / config->heads;
  if (object.Find("head_dim") == nullptr && family.hf_head_dim == 0 &&
      config->hidden % config->heads != 0) {
    return object.Wrong("num_attention_heads",
                        absl::StrCat(config->heads, " does not divide hidden_size ", config->hidden,
                                     ", and head_dim is missing"));
  }
  SWAA_ASSIGN_OR_RETURN(config->head_dim, object.Size("head_dim", kMaxHeadDim, fallback));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int32_t>> ReadDenseLayers(const HfObject& object, int32_t num_layers) {
  SWAA_ASSIGN_OR_RETURN(const int32_t step, object.Size("decoder_sparse_step", kMaxLayers, 1));
  std::vector<bool> dense(num_layers);
  for (int32_t layer = 0; layer < num_layers; ++layer) dense[layer] = (layer + 1) % step != 0;
  constexpr const char* kList = "mlp_only_layers";
  if (const Json* list = object.Find(kList); list != nullptr) {
    if (!list->is_array()) return object.Wrong(kList, "is not a list");
    for (const Json& layer : *list) {
      if (!layer.is_number_integer()) {
        return object.Wrong(kList, absl::StrCat(HfObject::Shown(layer), " is no layer"));
      }
      if (layer >= 0 && layer < num_layers) dense[layer.get<int32_t>()] = true;
    }
  }
  std::vector<int32_t> layers;
  for (int32_t layer = 0; layer < num_layers; ++layer) {
    if (dense[layer]) layers.push_back(layer);
  }
  return layers;
}

absl::Status ReadExperts(const HfObject& object, ModelConfig* config) {
  ExpertsConfig experts;
  // transformers 5 writes num_local_experts.
  const char* count_key =
      object.Find("num_experts") != nullptr ? "num_experts" : "num_local_experts";
  SWAA_ASSIGN_OR_RETURN(experts.count, object.Size(count_key, kMaxExperts));
  SWAA_ASSIGN_OR_RETURN(experts.per_token, object.Size("num_experts_per_tok", experts.count));
  SWAA_ASSIGN_OR_RETURN(experts.ffn_width, object.Size("moe_intermediate_size", kMaxFfnWidth));
  SWAA_ASSIGN_OR_RETURN(experts.normalize, object.Bool("norm_topk_prob", false));
  SWAA_ASSIGN_OR_RETURN(experts.dense_layers, ReadDenseLayers(object, config->num_layers));
  // A model all of whose layers are dense is one without experts.
  if (experts.dense_layers.size() < static_cast<size_t>(config->num_layers)) {
    config->experts = std::move(experts);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelConfig> ReadHfConfig(const Json& json, const std::string& file) {
  const HfObject object(json, file);
  SWAA_ASSIGN_OR_RETURN(const Family* family, ReadFamily(object));
  SWAA_RETURN_IF_ERROR(RefuseFeatures(object));
  ModelConfig config;
  config.architecture = std::string(family->hf_name);
  config.qk_norm = family->qk_norm;
  if (const Json* name = object.Find("_name_or_path"); name != nullptr && name->is_string()) {
    config.name = name->get<std::string>();
  }
  for (const SizeKey& key : kSizeKeys) {
    SWAA_ASSIGN_OR_RETURN(config.*key.member, object.Size(key.name, key.most));
  }
  SWAA_RETURN_IF_ERROR(ReadHeads(object, *family, &config));
  SWAA_ASSIGN_OR_RETURN(const double epsilon, object.Number("rms_norm_eps", std::nullopt));
  config.norm_epsilon = static_cast<float>(epsilon);
  SWAA_ASSIGN_OR_RETURN(config.tied_embeddings, object.Bool("tie_word_embeddings", false));
  SWAA_ASSIGN_OR_RETURN(config.qkv_bias, HasBias(object, family->qkv_bias));
  SWAA_ASSIGN_OR_RETURN(config.output_bias, HasBias(object, family->output_bias));
  if (family->moe) SWAA_RETURN_IF_ERROR(ReadExperts(object, &config));
  SWAA_RETURN_IF_ERROR(ReadHfRope(object, &config));
  SWAA_RETURN_IF_ERROR(RefuseWindows(object, *family, config));
  SWAA_RETURN_IF_ERROR(ValidateConfig(config, file));
  return config;
}

}  // namespace swaa
