// A linear model of how long a step takes.

#include "engine/schedule/step_time_model.h"

#include <cmath>

namespace swaa {
namespace {

constexpr int64_t kFirstFitSteps = 32;
constexpr double kHalfLifeSteps = 10'000;
// Below this, of a diagonal scaled to one, a term is a combination of those before it.
constexpr double kSmallestPivot = 1e-10;
// A further term must explain this much of the sum of squares to be worth having.
constexpr double kLeastGain = 1e-9;

double Forgetting() {
  static const double factor = std::exp2(-1 / kHalfLifeSteps);
  return factor;
}

}  // namespace

int StepTimeModel::KindOf(const StepWork& step) {
  if (step.decode_tokens == 0) return 0;
  return step.prefill_tokens == 0 ? 1 : 2;
}

StepTimeModel::Vector StepTimeModel::Terms(const StepWork& work, double constant) {
  return {constant, static_cast<double>(work.prefill_tokens),
          static_cast<double>(work.decode_tokens), static_cast<double>(work.prefill_keys),
          static_cast<double>(work.decode_keys)};
}

// With five terms every subset can be tried: the best of those whose solution has no negative
// coefficient is the non-negative optimum. Of subsets that explain as much the first wins, and
// those without b0 come first: where steps are too alike to tell overhead from work, it is booked
// as work, which understates differences between recipes.
StepTimeModel::Vector StepTimeModel::Fit(const Kind& kind) {
  Vector scale;
  for (int i = 0; i < kTerms; ++i) {
    scale[i] = kind.products[i][i] > 0 ? 1 / std::sqrt(kind.products[i][i]) : 0;
  }
  Vector best{};
  double best_gain = 0;
  constexpr int kSubsets = 1 << kTerms;
  for (int order = 1; order < kSubsets; ++order) {
    // Bit 0 of the subset, b0, is the highest of the order.
    const int subset = (order << 1 | order >> (kTerms - 1)) & (kSubsets - 1);
    // Cholesky's factorisation of the subset's scaled products, and the solution by substitution.
    std::array<Vector, kTerms> factor{};
    Vector solution{};
    bool feasible = true;
    for (int i = 0; i < kTerms && feasible; ++i) {
      if ((subset >> i & 1) == 0) continue;
      for (int j = 0; j <= i; ++j) {
        if ((subset >> j & 1) == 0) continue;
        double sum = kind.products[i][j] * scale[i] * scale[j];
        for (int k = 0; k < j; ++k) sum -= factor[i][k] * factor[j][k];
        if (i != j) {
          factor[i][j] = sum / factor[j][j];
        } else if (sum > kSmallestPivot) {
          factor[i][i] = std::sqrt(sum);
        } else {
          feasible = false;
        }
      }
      if (!feasible) break;
      double sum = kind.targets[i] * scale[i];
      for (int k = 0; k < i; ++k) sum -= factor[i][k] * solution[k];
      solution[i] = sum / factor[i][i];
    }
    if (!feasible) continue;
    double gain = 0;
    for (const double part : solution) gain += part * part;
    for (int i = kTerms - 1; i >= 0; --i) {
      if ((subset >> i & 1) == 0) continue;
      for (int k = i + 1; k < kTerms; ++k) solution[i] -= factor[k][i] * solution[k];
      solution[i] /= factor[i][i];
      feasible = feasible && solution[i] >= 0;
    }
    if (!feasible || gain <= best_gain * (1 + kLeastGain)) continue;
    best_gain = gain;
    for (int i = 0; i < kTerms; ++i) best[i] = solution[i] * scale[i];
  }
  return best;
}

void StepTimeModel::Observe(const StepWork& step, double seconds) {
  Kind& kind = kinds_[KindOf(step)];
  const Vector terms = Terms(step, 1);
  const double keep = Forgetting();
  if (kind.coefficients.has_value()) {
    double predicted = 0;
    for (int i = 0; i < kTerms; ++i) predicted += (*kind.coefficients)[i] * terms[i];
    ++judged_steps_;
    judged_seconds_ = judged_seconds_ * keep + seconds;
    predicted_seconds_ = predicted_seconds_ * keep + predicted;
    overhead_seconds_ = overhead_seconds_ * keep + kind.coefficients->front();
    residual_seconds_ = residual_seconds_ * keep + std::abs(seconds - predicted);
  }
  for (int i = 0; i < kTerms; ++i) {
    kind.targets[i] = kind.targets[i] * keep + terms[i] * seconds;
    for (int j = 0; j < kTerms; ++j) {
      kind.products[i][j] = kind.products[i][j] * keep + terms[i] * terms[j];
    }
  }
  ++kind.steps;
  if (kind.steps >= kFirstFitSteps) kind.coefficients = Fit(kind);
}

std::optional<double> StepTimeModel::Cost(const StepWork& step, const StepWork& part) const {
  const Kind& kind = kinds_[KindOf(step)];
  if (!kind.coefficients.has_value()) return std::nullopt;
  const Vector terms = Terms(part, 0);
  double cost = 0;
  for (int i = 0; i < kTerms; ++i) cost += (*kind.coefficients)[i] * terms[i];
  return cost;
}

StepTimeModel::Quality StepTimeModel::quality() const {
  Quality quality{.steps = judged_steps_};
  if (judged_seconds_ > 0) {
    quality.error_ratio = residual_seconds_ / judged_seconds_;
    quality.closure_ratio = predicted_seconds_ / judged_seconds_;
    quality.overhead_ratio = overhead_seconds_ / judged_seconds_;
  }
  return quality;
}

}  // namespace swaa
