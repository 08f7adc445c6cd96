// When an arm does too much harm to go on.

#include "server/experiments/guardrails.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"
#include "server/experiments/statistics/always_valid.h"
#include "server/experiments/statistics/quantile_sketch.h"
#include "server/experiments/statistics/ratio_estimate.h"

namespace swaa::server {
namespace {

constexpr int64_t kLeastUnits = 100;
constexpr double kLeastOnes = 25;  // and zeros, of a rate
constexpr int64_t kMinuteMs = 60'000;

std::vector<Sum> SumsOf(const std::map<SumKey, Sum>& totals, const std::string& metric,
                        int32_t arm) {
  std::vector<Sum> groups(kUnitGroups);
  for (const auto& [key, sum] : totals) {
    if (key.arm == arm && key.metric == metric) groups[key.group] += sum;
  }
  return groups;
}

bool IsBurntIn(const v1::ExperimentMetric& metric, const std::vector<Sum>& groups) {
  Sum all;
  for (const Sum& group : groups) all += group;
  if (metric.scale() != v1::METRIC_SCALE_RATE) return all.count > 0;
  return all.sum >= kLeastOnes && static_cast<double>(all.count) - all.sum >= kLeastOnes;
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
  if (units[control] < kLeastUnits) return breaches;
  for (int32_t arm = 0; arm < proto.arms_size(); ++arm) {
    if (arm == control || units[arm] < kLeastUnits) continue;
    for (const v1::ExperimentMetric& metric : proto.metrics()) {
      if (metric.role() != v1::METRIC_ROLE_GUARDRAIL) continue;
      const std::vector<Sum> of_arm = SumsOf(totals, metric.name(), arm);
      const std::vector<Sum> of_control = SumsOf(totals, metric.name(), control);
      if (!IsBurntIn(metric, of_arm) || !IsBurntIn(metric, of_control)) continue;
      const RatioEstimate treated = EstimateRatio(std::span<const Sum>(of_arm));
      const RatioEstimate untreated = EstimateRatio(std::span<const Sum>(of_control));
      if (!treated.usable() || !untreated.usable()) continue;
      // A switchback's arms share the same units.
      const bool unequal =
          proto.design() == v1::EXPERIMENT_DESIGN_UNIT &&
          experiment.arm_ranges[arm].size() != experiment.arm_ranges[control].size();
      const EffectEstimate estimate = Difference(treated, untreated, unequal);
      const double harm = metric.higher_is_better() ? -estimate.effect : estimate.effect;
      const double margin =
          OneSidedMargin(estimate.standard_error, metric.minimum_detectable_effect(), alpha);
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
