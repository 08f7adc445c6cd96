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

bool IsAboveZero(double number) { return std::isfinite(number) && number > 0; }

struct ScalingCheck {
  const ModelConfig& config;
  const std::string& file;

  absl::Status operator()(std::monostate) const { return absl::OkStatus(); }

  absl::Status operator()(const LinearRopeScaling& scaling) const {
    if (IsAboveZero(scaling.factor)) return absl::OkStatus();
    return Wrong(file, absl::StrCat("rope scaling factor ", scaling.factor, " is not above zero"));
  }

  absl::Status operator()(const Llama3RopeScaling& scaling) const {
    const bool sound = IsAboveZero(scaling.factor) && IsAboveZero(scaling.low_freq_factor) &&
                       IsAboveZero(scaling.high_freq_factor) &&
                       scaling.high_freq_factor > scaling.low_freq_factor &&
                       IsAboveZero(scaling.original_context);
    if (sound) return absl::OkStatus();
    return Wrong(
        file, absl::StrCat("rope scaling with factor ", scaling.factor, ", low_freq_factor ",
                           scaling.low_freq_factor, ", high_freq_factor ", scaling.high_freq_factor,
                           " and original context ", scaling.original_context,
                           "; all must be above zero, and high above low"));
  }

  absl::Status operator()(const YarnRopeScaling& scaling) const {
    const bool sound = IsAboveZero(scaling.factor) && IsAboveZero(scaling.original_context) &&
                       IsAboveZero(scaling.beta_fast) && IsAboveZero(scaling.beta_slow) &&
                       scaling.beta_fast >= scaling.beta_slow &&
                       IsAboveZero(scaling.attention_factor) && config.rope_theta > 1;
    if (sound) return absl::OkStatus();
    return Wrong(
        file, absl::StrCat("YaRN rope scaling with factor ", scaling.factor, ", original context ",
                           scaling.original_context, ", beta_fast ", scaling.beta_fast,
                           ", beta_slow ", scaling.beta_slow, ", attention factor ",
                           scaling.attention_factor, " and rope base ", config.rope_theta,
                           "; all must be above zero, beta_fast not below beta_slow, the base "
                           "above one"));
  }
};

absl::Status ValidateRope(const ModelConfig& config, const std::string& file) {
  if (!std::isfinite(config.rope_theta) || config.rope_theta <= 0) {
    return Wrong(file, absl::StrCat("rope base ", config.rope_theta, " is not above zero"));
  }
  SWAA_RETURN_IF_ERROR(std::visit(ScalingCheck{config, file}, config.rope_scaling));
  for (const float factor : config.rope_frequency_factors) {
    if (!std::isfinite(factor) || factor <= 0) {
      return Wrong(file, absl::StrCat("rope frequency factor ", factor, " is not above zero"));
    }
  }
  return absl::OkStatus();
}

// All experts of a layer together are no wider than a feed-forward network may be.
absl::Status ValidateExperts(const ExpertsConfig& experts, const std::string& file) {
  const std::string place = absl::StrCat(file, ": ");
  SWAA_RETURN_IF_ERROR(
      CheckedSize(experts.count, 1, kMaxExperts, absl::StrCat(place, "number of experts"))
          .status());
  SWAA_RETURN_IF_ERROR(CheckedSize(experts.per_token, 1, experts.count,
                                   absl::StrCat(place, "number of experts used by a token"))
                           .status());
  return CheckedSize(experts.ffn_width, 1, kMaxFfnWidth / experts.count,
                     absl::StrCat(place, "feed-forward width of ", experts.count, " experts"))
      .status();
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
  if (config.experts.has_value()) {
    SWAA_RETURN_IF_ERROR(ValidateExperts(*config.experts, file));
  }
  return ValidateRope(config, file);
}

}  // namespace swaa
