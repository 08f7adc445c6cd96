// Rotary frequencies by transformers' formulas.

#include "engine/checkpoint/rope_frequencies.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace swaa {
namespace {

// Changes the frequency of dimension `i` of `config`'s head_dim / 2.
class Scale {
 public:
  Scale(const ModelConfig& config, int64_t i) : config_(config), i_(static_cast<double>(i)) {}

  double operator()(std::monostate) const { return Plain(); }

  double operator()(const LinearRopeScaling& scaling) const { return Plain() / scaling.factor; }

  double operator()(const Llama3RopeScaling& scaling) const {
    const double turns = scaling.original_context * Plain() / (2 * std::numbers::pi);
    const double share = std::clamp(
        (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor),
        0.0, 1.0);
    return Plain() * (share + (1 - share) / scaling.factor);
  }

  double operator()(const YarnRopeScaling& scaling) const {
    double low = DimensionThatTurns(scaling.beta_fast, scaling.original_context);
    double high = DimensionThatTurns(scaling.beta_slow, scaling.original_context);
    if (scaling.truncate) {
      low = std::floor(low);
      high = std::ceil(high);
    }
    low = std::max(low, 0.0);
    high = std::min(high, static_cast<double>(config_.head_dim - 1));
    if (low == high) high += 0.001;
    const double stretched = std::clamp((i_ - low) / (high - low), 0.0, 1.0);
    return Plain() * (1 - stretched + stretched / scaling.factor);
  }

 private:
  double Plain() const { return std::pow(config_.rope_theta, -2 * i_ / config_.head_dim); }

  // The dimension that turns `times` times in `context` positions, between the whole ones.
  double DimensionThatTurns(double times, double context) const {
    return config_.head_dim * std::log(context / (times * 2 * std::numbers::pi)) /
           (2 * std::log(config_.rope_theta));
  }

  const ModelConfig& config_;
  const double i_;
};

}  // namespace

std::vector<float> RopeInverseFrequencies(const ModelConfig& config) {
  std::vector<float> frequencies(config.head_dim / 2);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    double frequency = std::visit(Scale(config, static_cast<int64_t>(i)), config.rope_scaling);
    if (!config.rope_frequency_factors.empty()) frequency /= config.rope_frequency_factors[i];
    frequencies[i] = static_cast<float>(frequency);
  }
  return frequencies;
}

float RopeAttentionFactor(const ModelConfig& config) {
  const auto* yarn = std::get_if<YarnRopeScaling>(&config.rope_scaling);
  return yarn == nullptr ? 1.0f : static_cast<float>(yarn->attention_factor);
}

}  // namespace swaa
