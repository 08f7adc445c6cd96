// Keys as the GGUF specification and llama.cpp's writer name them.

#include "engine/checkpoint/gguf_model.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/checkpoint/family.h"
#include "engine/checkpoint/gguf_keys.h"
#include "engine/checkpoint/gguf_rope.h"
#include "engine/checkpoint/text_checks.h"
#include "engine/checkpoint/validate_config.h"
#include "engine/checkpoint/weight_table.h"

namespace swaa {
namespace {

// Features that some files of a known architecture ask for and the transformer does not have: each
// key, where present, must hold the number that switches it off.
struct NeutralKey {
  std::string_view name;  // after "<architecture>."
  double neutral;
};
constexpr NeutralKey kNeutralKeys[] = {
    {"expert_shared_count", 0},
    {"expert_gating_func", 1},  // softmax
    {"expert_weights_scale", 1},
    {"attention.sliding_window", 0},
    {"attention.scale", 0},
    {"attention.clamp_kqv", 0},
    {"attention.max_alibi_bias", 0},
    {"attention.causal", 1},
    {"residual_scale", 0},
    {"embedding_scale", 0},
    {"logit_scale", 0},
    {"attn_logit_softcapping", 0},
    {"final_logit_softcapping", 0},
    {"use_parallel_residual", 0},
    {"rope.scaling.yarn_log_multiplier", 0},
    {"rope.scaling.yarn_ext_factor", 1},
    {"rope.scaling.yarn_attn_factor", 1},
};

constexpr NeutralKey kDenseNeutralKeys[] = {
    {"expert_count", 0},
    {"expert_used_count", 0},
};

// Keys that are read, or that change nothing that is computed.
constexpr std::string_view kKnownKeys[] = {
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "vocab_size",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.attn_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "rope.scaling.finetuned",  // whether the model was trained again after scaling
    "tensor_data_layout",      // always the one that the architecture has
    "pooling_type",            // of embeddings, which are not served
};
constexpr std::string_view kKnownMoeKeys[] = {
    "expert_count",
    "expert_used_count",
    "expert_feed_forward_length",
    "expert_weights_norm",
};

absl::StatusOr<const Family*> ReadFamily(const GgufFile& gguf) {
  constexpr std::string_view kKey = "general.architecture";
  SWAA_ASSIGN_OR_RETURN(const std::optional<std::string_view> architecture, gguf.String(kKey));
  if (!architecture.has_value()) return gguf.KeyError(kKey, "is missing");
  const Family* family = FindGgufFamily(*architecture);
  if (family != nullptr) return family;
  return absl::UnimplementedError(
      gguf.KeyError(kKey, absl::StrCat(Quoted(*architecture),
                                       " is not supported; supported: ", GgufFamilyNames()))
          .message());
}

// What a key that nobody knows would change is not known either.
absl::Status RefuseFeatures(const Family& family, const GgufKeys& keys) {
  std::vector<NeutralKey> neutral(std::begin(kNeutralKeys), std::end(kNeutralKeys));
  std::vector<std::string_view> known(std::begin(kKnownKeys), std::end(kKnownKeys));
  if (family.moe) {
    known.insert(known.end(), std::begin(kKnownMoeKeys), std::end(kKnownMoeKeys));
  } else {
    neutral.insert(neutral.end(), std::begin(kDenseNeutralKeys), std::end(kDenseNeutralKeys));
  }
  for (const NeutralKey& key : neutral) {
    SWAA_RETURN_IF_ERROR(keys.ExpectNeutral(key.name, key.neutral));
    known.push_back(key.name);
  }
  for (const std::string_view name : keys.gguf().KeysWithPrefix(keys.prefix())) {
    const std::string_view key = name.substr(keys.prefix().size());
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    return keys.Unsupported(key,
                            "is not understood, and without it the model might compute something "
                            "else; take a file without this key if it changes nothing");
  }
  return absl::OkStatus();
}

// head_dim: given, or hidden / heads. All of it must be rotated, and V's heads be of the same size.
absl::StatusOr<int32_t> ReadHeadDim(const GgufKeys& keys, const ModelConfig& config) {
  if (!keys.Has("attention.key_length") && config.hidden % config.heads != 0) {
    return keys.Wrong("attention.head_count",
                      absl::StrCat(config.heads, " does not divide the embedding length ",
                                   config.hidden, ", and attention.key_length is missing"));
  }
  SWAA_ASSIGN_OR_RETURN(const int32_t head_dim, keys.Size("attention.key_length", kMaxHeadDim,
                                                          config.hidden / config.heads));
  for (const std::string_view key : {"attention.value_length", "rope.dimension_count"}) {
    SWAA_ASSIGN_OR_RETURN(const int32_t size, keys.Size(key, kMaxHeadDim, head_dim));
    if (size == head_dim) continue;
    return keys.Unsupported(key, absl::StrCat(size, " differs from the head dimension ", head_dim));
  }
  return head_dim;
}

absl::StatusOr<int32_t> ReadVocabSize(const GgufFile& gguf, const GgufKeys& keys) {
  const auto embedding = gguf.tensors().find("token_embd.weight");
  if (embedding == gguf.tensors().end() || embedding->second.shape.size() != 2) {
    return keys.Size("vocab_size", kMaxVocab);
  }
  const int64_t rows = embedding->second.shape.front();
  SWAA_ASSIGN_OR_RETURN(
      const int32_t vocab,
      CheckedSize(rows, 1, kMaxVocab,
                  absl::StrCat(gguf.file()->path(), ": rows of token_embd.weight")));
  SWAA_ASSIGN_OR_RETURN(const int32_t stated, keys.Size("vocab_size", kMaxVocab, vocab));
  if (stated != vocab) {
    return keys.Wrong("vocab_size", absl::StrCat(stated, " differs from the ", vocab,
                                                 " rows of token_embd.weight"));
  }
  return vocab;
}

// Biases that the family may have are those that the file holds.
bool HasBias(const GgufFile& gguf, Bias bias, std::string_view tensor) {
  return bias == Bias::kAlways || (bias == Bias::kAsStated && gguf.tensors().contains(tensor));
}

// Layers without a router are dense ones. Shares are normalised unless the file says otherwise, as
// llama.cpp does it for this architecture; so is the width where no key names it.
absl::Status ReadExperts(const GgufFile& gguf, const GgufKeys& keys, ModelConfig* config) {
  ExpertsConfig experts;
  SWAA_ASSIGN_OR_RETURN(experts.count, keys.Size("expert_count", kMaxExperts));
  SWAA_ASSIGN_OR_RETURN(experts.per_token, keys.Size("expert_used_count", experts.count));
  SWAA_ASSIGN_OR_RETURN(experts.ffn_width, keys.Size("expert_feed_forward_length", kMaxFfnWidth,
                                                     config->ffn_width / experts.per_token));
  SWAA_ASSIGN_OR_RETURN(const std::optional<bool> normalize,
                        gguf.Bool(keys.Name("expert_weights_norm")));
  experts.normalize = normalize.value_or(true);
  for (int32_t layer = 0; layer < config->num_layers; ++layer) {
    const std::string router = WeightName({WeightRole::kRouter, layer}, WeightNaming::kGguf);
    if (!gguf.tensors().contains(router)) experts.dense_layers.push_back(layer);
  }
  if (experts.dense_layers.size() < static_cast<size_t>(config->num_layers)) {
    config->experts = std::move(experts);
  }
  return absl::OkStatus();
}

absl::Status ReadSizes(const GgufFile& gguf, const GgufKeys& keys, ModelConfig* config) {
  SWAA_ASSIGN_OR_RETURN(config->num_layers, keys.Size("block_count", kMaxLayers));
  SWAA_ASSIGN_OR_RETURN(config->max_context_tokens, keys.Size("context_length", kMaxContext));
  SWAA_ASSIGN_OR_RETURN(config->hidden, keys.Size("embedding_length", kMaxHidden));
  const int32_t layers = config->num_layers;
  SWAA_ASSIGN_OR_RETURN(config->ffn_width,
                        keys.SizeOfLayers("feed_forward_length", kMaxFfnWidth, layers));
  SWAA_ASSIGN_OR_RETURN(config->heads,
                        keys.SizeOfLayers("attention.head_count", kMaxHeads, layers));
  SWAA_ASSIGN_OR_RETURN(config->kv_heads, keys.SizeOfLayers("attention.head_count_kv", kMaxHeads,
                                                            layers, config->heads));
  SWAA_ASSIGN_OR_RETURN(config->head_dim, ReadHeadDim(keys, *config));
  SWAA_ASSIGN_OR_RETURN(config->vocab_size, ReadVocabSize(gguf, keys));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelConfig> ReadGgufConfig(const GgufFile& gguf) {
  SWAA_ASSIGN_OR_RETURN(const Family* family, ReadFamily(gguf));
  const GgufKeys keys(gguf, family->gguf_arch);
  SWAA_RETURN_IF_ERROR(RefuseFeatures(*family, keys));
  ModelConfig config;
  config.architecture = std::string(family->gguf_arch);
  SWAA_ASSIGN_OR_RETURN(const std::optional<std::string_view> name, gguf.String("general.name"));
  config.name = std::string(name.value_or(""));
  SWAA_RETURN_IF_ERROR(ReadSizes(gguf, keys, &config));
  if (family->moe) SWAA_RETURN_IF_ERROR(ReadExperts(gguf, keys, &config));
  SWAA_ASSIGN_OR_RETURN(const double epsilon,
                        keys.Number("attention.layer_norm_rms_epsilon", std::nullopt));
  config.norm_epsilon = static_cast<float>(epsilon);
  SWAA_RETURN_IF_ERROR(ReadGgufRope(keys, &config));
  config.tied_embeddings = !gguf.tensors().contains("output.weight");
  config.qkv_bias = HasBias(gguf, family->qkv_bias, "blk.0.attn_q.bias");
  config.output_bias = HasBias(gguf, family->output_bias, "blk.0.attn_output.bias");
  config.qk_norm = family->qk_norm;
  SWAA_RETURN_IF_ERROR(ValidateConfig(config, gguf.file()->path()));
  return config;
}

}  // namespace swaa
