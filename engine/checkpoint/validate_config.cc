// Refuses configurations whose numbers do not fit together.

#include "engine/checkpoint/validate_config.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace swaa {
namespace {

absl::Status Wrong(const std::string& file, std::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat(file, ": ", std::string(problem)));
}

absl::Status ValidateRope(const ModelConfig& config, const std::string& file) {
  if (!std::isfinite(config.rope_theta) || config.rope_theta <= 0) {
    return Wrong(file, absl::StrCat("rope base ", config.rope_theta, " is not above zero"));
  }
  if (const auto& scaling = config.rope_scaling; scaling.has_value()) {
    const bool sound = std::isfinite(scaling->factor) && scaling->factor > 0 &&
                       std::isfinite(scaling->low_freq_factor) && scaling->low_freq_factor > 0 &&
                       std::isfinite(scaling->high_freq_factor) &&
                       scaling->high_freq_factor > scaling->low_freq_factor &&
                       std::isfinite(scaling->original_context) && scaling->original_context > 0;
    if (!sound) {
      return Wrong(file, absl::StrCat("rope scaling with factor ", scaling->factor,
                                      ", low_freq_factor ", scaling->low_freq_factor,
                                      ", high_freq_factor ", scaling->high_freq_factor,
                                      " and original context ", scaling->original_context,
                                      "; all must be above zero, and high above low"));
    }
  }
  for (const float factor : config.rope_frequency_factors) {
    if (!std::isfinite(factor) || factor <= 0) {
      return Wrong(file, absl::StrCat("rope frequency factor ", factor, " is not above zero"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<int32_t> CheckedSize(int64_t value, int64_t least, int64_t most,
                                    std::string_view name) {
  if (value < least || value > most) {
    return absl::InvalidArgumentError(
        absl::StrCat(std::string(name), ": ", value, " is not between ", least, " and ", most));
  }
  return static_cast<int32_t>(value);
}

absl::Status ValidateConfig(const ModelConfig& config, const std::string& file) {
  const struct {
    std::string_view name;
    int64_t value;
    int64_t most;
  } kSizes[] = {
      {"number of layers", config.num_layers, kMaxLayers},
      {"hidden size", config.hidden, kMaxHidden},
      {"feed-forward width", config.ffn_width, kMaxFfnWidth},
      {"number of heads", config.heads, kMaxHeads},
      {"number of KV heads", config.kv_heads, kMaxHeads},
      {"head dimension", config.head_dim, kMaxHeadDim},
      {"vocabulary size", config.vocab_size, kMaxVocab},
      {"context length", config.max_context_tokens, kMaxContext},
  };
  for (const auto& size : kSizes) {
    SWAA_RETURN_IF_ERROR(
        CheckedSize(size.value, 1, size.most, absl::StrCat(file, ": ", std::string(size.name)))
            .status());
  }
  if (config.head_dim % 2 != 0) {
    return Wrong(file, absl::StrCat("head dimension ", config.head_dim, " is odd"));
  }
  if (config.heads % config.kv_heads != 0) {
    return Wrong(file, absl::StrCat(config.heads, " heads do not divide among ", config.kv_heads,
                                    " KV heads"));
  }
  if (!std::isfinite(config.norm_epsilon) || config.norm_epsilon <= 0) {
    return Wrong(file, absl::StrCat("norm epsilon ", config.norm_epsilon, " is not above zero"));
  }
  return ValidateRope(config, file);
}

}  // namespace swaa
