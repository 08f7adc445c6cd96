// Keys "rope.*", and the tensor of frequency factors.

#include "engine/checkpoint/gguf_rope.h"

#include <cmath>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/checkpoint/gguf_model.h"
#include "engine/checkpoint/text_checks.h"

namespace swaa {
namespace {

constexpr std::string_view kType = "rope.scaling.type";
constexpr std::string_view kFactor = "rope.scaling.factor";
constexpr std::string_view kOldFactor = "rope.scale_linear";
constexpr std::string_view kAttentionFactor = "rope.scaling.attn_factor";

// Zero means none.
absl::StatusOr<double> ReadFactor(const GgufKeys& keys) {
  const std::string_view key = keys.Has(kFactor) ? kFactor : kOldFactor;
  SWAA_ASSIGN_OR_RETURN(const double factor, keys.Number(key, 1.0));
  if (factor == 0) return 1.0;
  if (!std::isfinite(factor) || factor < 0) {
    return keys.Wrong(key, absl::StrCat(factor, " is not above zero"));
  }
  return factor;
}

absl::Status ReadYarn(const GgufKeys& keys, double factor, ModelConfig* config) {
  YarnRopeScaling scaling;
  scaling.factor = factor;
  SWAA_ASSIGN_OR_RETURN(
      scaling.original_context,
      keys.Number("rope.scaling.original_context_length", config->max_context_tokens));
  SWAA_ASSIGN_OR_RETURN(scaling.beta_fast,
                        keys.Number("rope.scaling.yarn_beta_fast", scaling.beta_fast));
  SWAA_ASSIGN_OR_RETURN(scaling.beta_slow,
                        keys.Number("rope.scaling.yarn_beta_slow", scaling.beta_slow));
  SWAA_ASSIGN_OR_RETURN(const double attention_factor, keys.Number(kAttentionFactor, 1.0));
  scaling.attention_factor = attention_factor * (1 + 0.1 * std::log(factor));
  config->rope_scaling = scaling;
  return absl::OkStatus();
}

absl::Status ReadScaling(const GgufKeys& keys, ModelConfig* config) {
  SWAA_ASSIGN_OR_RETURN(const std::optional<std::string_view> stated, keys.String(kType));
  const std::string_view type = stated.value_or("linear");
  SWAA_ASSIGN_OR_RETURN(const double factor, ReadFactor(keys));
  if (type == "yarn") return ReadYarn(keys, factor, config);
  SWAA_RETURN_IF_ERROR(keys.ExpectNeutral(kAttentionFactor, 1));
  if (type == "none") return absl::OkStatus();
  if (type != "linear") {
    return keys.Unsupported(
        kType, absl::StrCat(Quoted(type), " is not supported; none, linear and yarn, and factors ",
                            "in ", std::string(kGgufRopeFactors), ", are"));
  }
  if (factor != 1) config->rope_scaling = LinearRopeScaling{.factor = factor};
  return absl::OkStatus();
}

absl::Status ReadFactors(const GgufFile& gguf, ModelConfig* config) {
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

absl::Status ReadGgufRope(const GgufKeys& keys, ModelConfig* config) {
  SWAA_ASSIGN_OR_RETURN(config->rope_theta, keys.Number("rope.freq_base", 10000.0));
  SWAA_RETURN_IF_ERROR(ReadScaling(keys, config));
  return ReadFactors(keys.gguf(), config);
}

}  // namespace swaa
