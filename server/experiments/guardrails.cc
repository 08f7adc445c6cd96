// When an arm does too much harm to go on.

#include "server/experiments/guardrails.h"

#include <algorithm>
#include <optional>
#include <span>

#include "absl/strings/str_format.h"
#include "server/experiments/statistics/always_valid.h"
#include "server/experiments/statistics/quantile_sketch.h"
#include "server/experiments/statistics/ratio_estimate.h"

namespace swaa::server {
namespace {

constexpr int64_t kLeastUnits = 100;
constexpr double kLeastOnes = 25;  // and zeros, of a rate in both arms together
constexpr int64_t kMinuteMs = 60'000;

std::vector<Sum> SumsOf(const std::map<SumKey, Sum>& totals, const std::string& metric,
                        int32_t arm) {
  std::vector<Sum> groups(kUnitGroups);
  for (const auto& [key, sum] : totals) {
    const bool in_range = key.group >= 0 && key.group < kUnitGroups;
    if (key.arm == arm && key.metric == metric && in_range) groups[key.group] += sum;
  }
  return groups;
}

Sum TotalOf(const std::vector<Sum>& groups) {
  Sum all;
  for (const Sum& group : groups) all += group;
  return all;
}

// Arm against control. Of a rate both arms together need their ones and zeros, as an arm that
// always fails beside a control that never does has no others; then neither arm's variance may be
// less than what chance alone would make of the rate that they have together.
std::optional<EffectEstimate> Compare(const v1::ExperimentMetric& metric,
                                      const std::vector<Sum>& of_arm,
                                      const std::vector<Sum>& of_control, bool unequal) {
  RatioEstimate treated = EstimateRatio(std::span<const Sum>(of_arm));
  RatioEstimate untreated = EstimateRatio(std::span<const Sum>(of_control));
  if (!treated.usable() || !untreated.usable()) return std::nullopt;
  if (metric.scale() == v1::METRIC_SCALE_RATE) {
    Sum both = TotalOf(of_arm);
    both += TotalOf(of_control);
    const double count = static_cast<double>(both.count);
    if (both.sum < kLeastOnes || count - both.sum < kLeastOnes) return std::nullopt;
    const double rate = both.sum / count;
    for (RatioEstimate* one : {&treated, &untreated}) {
      one->variance = std::max(one->variance, rate * (1 - rate) / one->denominator);
    }
  }
  return Difference(treated, untreated, unequal);
}

}  // namespace

std::vector<GuardrailBreach> FindGuardrailBreaches(const ActiveExperiment& experiment,
                                                   const std::map<SumKey, Sum>& totals,
                                                   const std::vector<int64_t>& units) {
  std::vector<GuardrailBreach> breaches;
  const v1::Experiment& proto = experiment.proto();
  const int32_t control = experiment.definition.control;
  const auto guards = std::count_if(proto.metrics().begin(), proto.metrics().end(),
                                    [](const v1::ExperimentMetric& metric) {
                                      return metric.role() == v1::METRIC_ROLE_GUARDRAIL;
                                    });
  const double alpha =
      kGuardrailAlpha / static_cast<double>(std::max<int64_t>(1, guards * (proto.arms_size() - 1)));
  // A switchback's noise comes by time, which the units' groups do not see.
  if (proto.design() == v1::EXPERIMENT_DESIGN_SWITCHBACK) return breaches;
  if (units[control] < kLeastUnits) return breaches;
  for (int32_t arm = 0; arm < proto.arms_size(); ++arm) {
    if (arm == control || units[arm] < kLeastUnits) continue;
    for (const v1::ExperimentMetric& metric : proto.metrics()) {
      if (metric.role() != v1::METRIC_ROLE_GUARDRAIL) continue;
      const std::vector<Sum> of_arm = SumsOf(totals, metric.name(), arm);
      const std::vector<Sum> of_control = SumsOf(totals, metric.name(), control);
      const bool unequal =
          experiment.arm_ranges[arm].size() != experiment.arm_ranges[control].size();
      const std::optional<EffectEstimate> estimate = Compare(metric, of_arm, of_control, unequal);
      if (!estimate.has_value()) continue;
      const double harm = metric.higher_is_better() ? -estimate->effect : estimate->effect;
      const double margin =
          OneSidedMargin(estimate->standard_error, metric.minimum_detectable_effect(), alpha);
      if (!(harm - margin > metric.maximum_harm())) continue;
      breaches.push_back(
          {arm, absl::StrFormat("guardrail %s: %.4g worse than %s, at least %.4g with confidence "
                                "%.6g, where %.4g is allowed",
                                metric.name(), harm, proto.control_arm(), harm - margin, 1 - alpha,
                                metric.maximum_harm())});
      break;
    }
  }
  return breaches;
}

void LatencyGuardrail::Observe(double seconds, int64_t now_ms) {
  const int64_t minute = now_ms / kMinuteMs;
  Minute& slot = minutes_[minute % minutes_.size()];
  if (slot.minute != minute) slot = {.minute = minute};
  ++slot.count;
  ++slot.bins[SketchBin(seconds)];
}

double LatencyGuardrail::Minute::P95() const {
  int64_t above = count / 20;
  for (auto bin = bins.rbegin(); bin != bins.rend(); ++bin) {
    above -= bin->second;
    if (above < 0) return SketchBinValue(bin->first);
  }
  return 0;
}

bool LatencyGuardrail::IsBreached(double limit_seconds, int64_t now_ms) const {
  const int64_t now = now_ms / kMinuteMs;
  for (int64_t minute = now - kMinutes; minute < now; ++minute) {
    const Minute& slot = minutes_[static_cast<size_t>(minute) % minutes_.size()];
    if (slot.minute != minute || slot.P95() <= limit_seconds) return false;
  }
  return true;
}

}  // namespace swaa::server
