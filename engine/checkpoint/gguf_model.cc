// Keys as the GGUF specification and llama.cpp's writer name them.

#include "engine/checkpoint/gguf_model.h"

#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/checkpoint/family.h"
#include "engine/checkpoint/text_checks.h"
#include "engine/checkpoint/validate_config.h"

namespace swaa {
namespace {

// Features that some files of a known architecture ask for and the transformer does not have: each
// key, where present, must hold the number that switches it off.
struct NeutralKey {
  std::string_view name;  // after "<architecture>."
  double neutral;
};
constexpr NeutralKey kNeutralKeys[] = {
    {"expert_count", 0},      {"attention.sliding_window", 0}, {"attention.scale", 0},
    {"rope.scale_linear", 1}, {"residual_scale", 0},           {"embedding_scale", 0},
    {"logit_scale", 0},
};

// Reads numbers of one architecture's keys, "llama.block_count" and so on.
class Keys {
 public:
  Keys(const GgufFile& gguf, std::string_view architecture)
      : gguf_(gguf), prefix_(absl::StrCat(std::string(architecture), ".")) {}

  std::string Name(std::string_view key) const { return absl::StrCat(prefix_, std::string(key)); }

  absl::StatusOr<int32_t> Size(std::string_view key, int64_t most,
                               std::optional<int32_t> fallback = std::nullopt) const {
    SWAA_ASSIGN_OR_RETURN(const std::optional<int64_t> value, gguf_.Int(Name(key)));
    if (!value.has_value() && fallback.has_value()) return *fallback;
    if (!value.has_value()) return gguf_.KeyError(Name(key), "is missing");
    if (*value < 1 || *value > most) {
      return gguf_.KeyError(Name(key), absl::StrCat(*value, " is not between 1 and ", most));
    }
    return static_cast<int32_t>(*value);
  }

  absl::StatusOr<double> Number(std::string_view key, std::optional<double> fallback) const {
    SWAA_ASSIGN_OR_RETURN(const std::optional<double> value, gguf_.Number(Name(key)));
    if (value.has_value()) return *value;
    if (fallback.has_value()) return *fallback;
    return gguf_.KeyError(Name(key), "is missing");
  }

 private:
  const GgufFile& gguf_;
  const std::string prefix_;
};

absl::Status Unsupported(const GgufFile& gguf, const std::string& key, std::string_view problem) {
  const absl::Status located = gguf.KeyError(key, problem);
  return absl::UnimplementedError(located.message());
}

absl::StatusOr<const Family*> ReadFamily(const GgufFile& gguf) {
  constexpr std::string_view kKey = "general.architecture";
  SWAA_ASSIGN_OR_RETURN(const std::optional<std::string_view> architecture, gguf.String(kKey));
  if (!architecture.has_value()) return gguf.KeyError(kKey, "is missing");
  const Family* family = FindGgufFamily(*architecture);
  if (family != nullptr && !family->moe) return family;
  if (family != nullptr) {
    return Unsupported(gguf, std::string(kKey),
                       absl::StrCat(Quoted(*architecture),
                                    ": mixtures of experts are not supported; take a dense model "
                                    "of the same family"));
  }
  return Unsupported(
      gguf, std::string(kKey),
      absl::StrCat(Quoted(*architecture), " is not supported; supported: ", GgufFamilyNames()));
}

// Biases that the family may have are those that the file holds.
bool HasBias(const GgufFile& gguf, Bias bias, std::string_view tensor) {
  return bias == Bias::kAlways || (bias == Bias::kAsStated && gguf.tensors().contains(tensor));
}

absl::Status RefuseFeatures(const GgufFile& gguf, const Keys& keys) {
  for (const NeutralKey& key : kNeutralKeys) {
    SWAA_ASSIGN_OR_RETURN(const double value, keys.Number(key.name, key.neutral));
    if (value == key.neutral) continue;
    return Unsupported(gguf, keys.Name(key.name), absl::StrCat(value, " is not supported"));
  }
  const std::string scaling_key = keys.Name("rope.scaling.type");
  SWAA_ASSIGN_OR_RETURN(const std::optional<std::string_view> scaling, gguf.String(scaling_key));
  if (scaling.has_value() && *scaling != "none") {
    return Unsupported(gguf, scaling_key,
                       absl::StrCat(Quoted(*scaling), " is not supported; none, or factors in ",
                                    std::string(kGgufRopeFactors), ", are"));
  }
  const std::string causal_key = keys.Name("attention.causal");
  SWAA_ASSIGN_OR_RETURN(const std::optional<bool> causal, gguf.Bool(causal_key));
  if (causal.has_value() && !*causal) {
    return Unsupported(gguf, causal_key, "attention without a causal mask is not supported");
  }
  return absl::OkStatus();
}

// head_dim: given, or hidden / heads. All of it must be rotated, and V's heads be of the same size.
absl::StatusOr<int32_t> ReadHeadDim(const GgufFile& gguf, const Keys& keys,
                                    const ModelConfig& config) {
  if (!gguf.Has(keys.Name("attention.key_length")) && config.hidden % config.heads != 0) {
    return gguf.KeyError(keys.Name("attention.head_count"),
                         absl::StrCat(config.heads, " does not divide the embedding length ",
                                      config.hidden, ", and attention.key_length is missing"));
  }
  SWAA_ASSIGN_OR_RETURN(const int32_t head_dim, keys.Size("attention.key_length", kMaxHeadDim,
                                                          config.hidden / config.heads));
  for (const std::string_view key : {"attention.value_length", "rope.dimension_count"}) {
    SWAA_ASSIGN_OR_RETURN(const int32_t size, keys.Size(key, kMaxHeadDim, head_dim));
    if (size == head_dim) continue;
    return Unsupported(gguf, keys.Name(key),
                       absl::StrCat(size, " differs from the head dimension ", head_dim));
  }
  return head_dim;
}

absl::StatusOr<int32_t> ReadVocabSize(const GgufFile& gguf, const Keys& keys) {
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
    return gguf.KeyError(keys.Name("vocab_size"), absl::StrCat(stated, " differs from the ", vocab,
                                                               " rows of token_embd.weight"));
  }
  return vocab;
}

absl::Status ReadRopeFactors(const GgufFile& gguf, ModelConfig* config) {
  const auto found = gguf.tensors().find(kGgufRopeFactors);
  if (found == gguf.tensors().end()) return absl::OkStatus();
  const StoredTensor& tensor = found->second;
  const std::vector<int64_t> wanted = {config->head_dim / 2};
  if (tensor.shape != wanted) {
    return absl::InvalidArgumentError(
        absl::StrCat(gguf.file()->path(), ": offset ", FileOffset(tensor), ": tensor ",
                     Quoted(kGgufRopeFactors), " has shape ", ShapeText(tensor.shape),
                     ", but the head dimension asks for ", ShapeText(wanted)));
  }
  config->rope_frequency_factors.resize(config->head_dim / 2);
  DequantizeRow(tensor.type, tensor.data, config->head_dim / 2,
                config->rope_frequency_factors.data());
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelConfig> ReadGgufConfig(const GgufFile& gguf) {
  ModelConfig config;
  SWAA_ASSIGN_OR_RETURN(const Family* family, ReadFamily(gguf));
  config.architecture = std::string(family->gguf_arch);
  const Keys keys(gguf, config.architecture);
  SWAA_RETURN_IF_ERROR(RefuseFeatures(gguf, keys));
  SWAA_ASSIGN_OR_RETURN(const std::optional<std::string_view> name, gguf.String("general.name"));
  config.name = std::string(name.value_or(""));
  SWAA_ASSIGN_OR_RETURN(config.num_layers, keys.Size("block_count", kMaxLayers));
  SWAA_ASSIGN_OR_RETURN(config.max_context_tokens, keys.Size("context_length", kMaxContext));
  SWAA_ASSIGN_OR_RETURN(config.hidden, keys.Size("embedding_length", kMaxHidden));
  SWAA_ASSIGN_OR_RETURN(config.ffn_width, keys.Size("feed_forward_length", kMaxFfnWidth));
  SWAA_ASSIGN_OR_RETURN(config.heads, keys.Size("attention.head_count", kMaxHeads));
  SWAA_ASSIGN_OR_RETURN(config.kv_heads,
                        keys.Size("attention.head_count_kv", kMaxHeads, config.heads));
  SWAA_ASSIGN_OR_RETURN(config.head_dim, ReadHeadDim(gguf, keys, config));
  SWAA_ASSIGN_OR_RETURN(const double epsilon,
                        keys.Number("attention.layer_norm_rms_epsilon", std::nullopt));
  config.norm_epsilon = static_cast<float>(epsilon);
  SWAA_ASSIGN_OR_RETURN(config.rope_theta, keys.Number("rope.freq_base", 10000.0));
  SWAA_ASSIGN_OR_RETURN(config.vocab_size, ReadVocabSize(gguf, keys));
  SWAA_RETURN_IF_ERROR(ReadRopeFactors(gguf, &config));
  config.tied_embeddings = !gguf.tensors().contains("output.weight");
  config.qkv_bias = HasBias(gguf, family->qkv_bias, "blk.0.attn_q.bias");
  config.output_bias = HasBias(gguf, family->output_bias, "blk.0.attn_output.bias");
  config.qk_norm = family->qk_norm;
  SWAA_RETURN_IF_ERROR(ValidateConfig(config, gguf.file()->path()));
  return config;
}

}  // namespace swaa
