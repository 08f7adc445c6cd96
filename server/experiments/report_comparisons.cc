// Effects with always valid intervals, and verdicts.

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "server/experiments/guardrails.h"
#include "server/experiments/metric_names.h"
#include "server/experiments/report.h"
#include "server/experiments/report_parts.h"
#include "server/experiments/statistics/always_valid.h"
#include "server/experiments/statistics/paired_difference.h"
#include "server/experiments/statistics/power.h"

namespace swaa::server {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Evidence {
  EffectEstimate estimate;
  bool usable = false;  // there is an estimate
  bool enough = false;  // and it may be judged
  int64_t units = 0;    // of both arms; of a switchback: pairs
};

bool HasOnesAndZeros(const Sum& sum) {
  return sum.sum >= kLeastOnesAndZeros &&
         static_cast<double>(sum.count) - sum.sum >= kLeastOnesAndZeros;
}

Evidence PairedEvidence(const ReportInput& input, const v1::ExperimentMetric& metric) {
  const std::vector<double>& differences = input.table.PairDifferences(metric.name());
  Evidence evidence{.estimate = PairedDifference(differences)};
  evidence.units = static_cast<int64_t>(differences.size());
  evidence.usable = evidence.units >= 2 && evidence.estimate.standard_error > 0;
  evidence.enough = evidence.usable && evidence.units >= kLeastPairs;
  return evidence;
}

Evidence UnitEvidence(const ReportInput& input, const v1::ExperimentMetric& metric, int32_t arm,
                      Population population) {
  Evidence evidence;
  const MetricTable& table = input.table;
  const RatioEstimate treatment = table.Estimate(arm, metric.name(), population);
  const RatioEstimate control = table.Estimate(input.control, metric.name(), population);
  const int64_t arm_units = table.Units(arm, population);
  const int64_t control_units = table.Units(input.control, population);
  evidence.units = arm_units + control_units;
  if (!treatment.usable() || !control.usable()) return evidence;
  evidence.estimate = Difference(treatment, control, input.HasUnequalShares(arm));
  evidence.usable = evidence.estimate.standard_error > 0;
  evidence.enough = evidence.usable && std::min(arm_units, control_units) >= kLeastUnits;
  if (metric.scale() == v1::METRIC_SCALE_RATE) {
    evidence.enough = evidence.enough &&
                      HasOnesAndZeros(table.Total(arm, metric.name(), population)) &&
                      HasOnesAndZeros(table.Total(input.control, metric.name(), population));
  }
  return evidence;
}

Evidence EvidenceOf(const ReportInput& input, const v1::ExperimentMetric& metric, int32_t arm,
                    Population population) {
  return input.is_switchback() ? PairedEvidence(input, metric)
                               : UnitEvidence(input, metric, arm, population);
}

v1::Verdict VerdictOf(const ReportInput& input, const v1::ExperimentMetric& metric, int32_t arm,
                      const Evidence& evidence, double half_width, bool trusted) {
  if (metric.role() == v1::METRIC_ROLE_INFORMATION) return v1::VERDICT_UNSPECIFIED;
  const bool guardrail = metric.role() == v1::METRIC_ROLE_GUARDRAIL;
  if (!trusted || !IsJudged(input, metric) || (input.WasStopped(arm) && !guardrail)) {
    return v1::VERDICT_NOT_TO_BE_TRUSTED;
  }
  if (!evidence.enough) return v1::VERDICT_TOO_FEW_UNITS;
  const double gain =
      metric.higher_is_better() ? evidence.estimate.effect : -evidence.estimate.effect;
  if (guardrail) {
    return -gain - half_width > metric.maximum_harm() ? v1::VERDICT_WORSE : v1::VERDICT_UNDECIDED;
  }
  if (gain > half_width) return v1::VERDICT_BETTER;
  return gain < -half_width ? v1::VERDICT_WORSE : v1::VERDICT_UNDECIDED;
}

// How the error is shared out: over judged goals, arms and populations; over guardrails and arms.
struct Alphas {
  double goal = 0;
  double guardrail = 0;
  double information = 0;

  double Of(const v1::ExperimentMetric& metric, bool judged) const {
    if (metric.role() == v1::METRIC_ROLE_GUARDRAIL) return guardrail;
    return metric.role() == v1::METRIC_ROLE_GOAL && judged ? goal : information;
  }
};

Alphas AlphasOf(const ReportInput& input, int populations) {
  int goals = 0;
  int guardrails = 0;
  for (const v1::ExperimentMetric& metric : input.experiment().metrics()) {
    goals += metric.role() == v1::METRIC_ROLE_GOAL && IsJudged(input, metric);
    guardrails += metric.role() == v1::METRIC_ROLE_GUARDRAIL;
  }
  const int arms = input.experiment().arms_size() - 1;
  const double alpha = input.experiment().alpha();
  return {.goal = alpha / std::max(1, goals * arms * populations),
          .guardrail = kGuardrailAlpha / std::max(1, guardrails * arms),
          .information = alpha};
}

// The effect with its interval and p-value; the verdict is left open.
v1::Comparison Described(const ReportInput& input, const v1::ExperimentMetric& metric, int32_t arm,
                         const EffectEstimate& estimate, double half_width, double alpha) {
  v1::Comparison comparison;
  comparison.set_metric(metric.name());
  comparison.set_arm(input.ArmName(arm));
  comparison.set_role(metric.role());
  comparison.set_scale(metric.scale());
  comparison.set_alpha(alpha);
  const auto on_scale = [&](double effect) {
    return metric.scale() == v1::METRIC_SCALE_LOG_MEAN ? std::exp(effect) : effect;
  };
  comparison.set_effect(on_scale(estimate.effect));
  comparison.set_lower(on_scale(estimate.effect - half_width));
  comparison.set_upper(on_scale(estimate.effect + half_width));
  comparison.set_p_value(half_width == kInfinity
                             ? 1
                             : AlwaysValidPValue(estimate.effect, estimate.standard_error,
                                                 metric.minimum_detectable_effect()));
  comparison.set_adjusted_p_value(comparison.p_value());
  return comparison;
}

v1::Comparison Compare(const ReportInput& input, const v1::ExperimentMetric& metric, int32_t arm,
                       Population population, const Alphas& alphas, bool trusted) {
  const Evidence evidence = EvidenceOf(input, metric, arm, population);
  const double alpha = alphas.Of(metric, IsJudged(input, metric));
  const double error = evidence.estimate.standard_error;
  const double tau = metric.minimum_detectable_effect();
  double half_width = kInfinity;
  if (evidence.usable) {
    half_width = metric.role() == v1::METRIC_ROLE_GUARDRAIL
                     ? OneSidedMargin(error, tau, alpha)
                     : AlwaysValidHalfWidth(error, tau, alpha);
  }
  v1::Comparison comparison = Described(input, metric, arm, evidence.estimate, half_width, alpha);
  comparison.set_triggered_only(population == Population::kTriggered);
  comparison.set_verdict(VerdictOf(input, metric, arm, evidence, half_width, trusted));
  const bool open = comparison.verdict() == v1::VERDICT_UNDECIDED ||
                    comparison.verdict() == v1::VERDICT_TOO_FEW_UNITS;
  if (open && evidence.usable && metric.role() == v1::METRIC_ROLE_GOAL) {
    comparison.set_further_units(
        FurtherUnits(static_cast<uint64_t>(evidence.units), error, tau, alpha));
  }
  return comparison;
}

// One arm against control among the requests of units of one age; nothing where either has none.
std::optional<v1::Comparison> CompareAtAge(const ReportInput& input,
                                           const v1::ExperimentMetric& metric, int32_t arm,
                                           int32_t unit_age) {
  const auto estimate_of = [&](int32_t of) {
    return EstimateRatio(input.table.Groups(of, metric.name(), Population::kAll, unit_age));
  };
  const RatioEstimate treatment = estimate_of(arm);
  const RatioEstimate control = estimate_of(input.control);
  if (!treatment.usable() || !control.usable()) return std::nullopt;
  const EffectEstimate estimate = Difference(treatment, control, input.HasUnequalShares(arm));
  if (estimate.standard_error <= 0) return std::nullopt;
  const double alpha = input.experiment().alpha();
  const double half_width =
      AlwaysValidHalfWidth(estimate.standard_error, metric.minimum_detectable_effect(), alpha);
  v1::Comparison comparison = Described(input, metric, arm, estimate, half_width, alpha);
  comparison.set_unit_age(kUnitAgeNames[static_cast<size_t>(unit_age)]);
  return comparison;
}

void AdjustPValues(const ReportInput& input, v1::GetReportResponse* report) {
  std::vector<v1::Comparison*> family;
  std::vector<double> p_values;
  for (v1::Comparison& comparison : *report->mutable_comparisons()) {
    v1::ExperimentMetric metric;
    metric.set_name(comparison.metric());
    if (comparison.role() != v1::METRIC_ROLE_GOAL || !IsJudged(input, metric)) continue;
    family.push_back(&comparison);
    p_values.push_back(comparison.p_value());
  }
  const std::vector<double> adjusted = HolmAdjusted(p_values);
  for (size_t i = 0; i < family.size(); ++i) family[i]->set_adjusted_p_value(adjusted[i]);
}

}  // namespace

bool IsJudged(const ReportInput& input, const v1::ExperimentMetric& metric) {
  const ServerMetric* measured = FindServerMetric(metric.name());
  if (metric.name() == kDeviceSeconds && input.step_model_error > kMostStepModelError) return false;
  if (input.is_switchback()) return measured != nullptr;
  return measured == nullptr || !measured->shared_batch;
}

void AddComparisons(const ReportInput& input, bool trusted, v1::GetReportResponse* report) {
  // Pairs of windows know no triggers.
  const bool by_trigger = input.has_untriggered() && !input.is_switchback();
  const Alphas alphas = AlphasOf(input, by_trigger ? 2 : 1);
  for (const v1::ExperimentMetric& metric : input.experiment().metrics()) {
    for (int32_t arm = 0; arm < input.experiment().arms_size(); ++arm) {
      if (arm == input.control) continue;
      *report->add_comparisons() = Compare(input, metric, arm, Population::kAll, alphas, trusted);
      // A guardrail looks at all that an arm does.
      if (!by_trigger || metric.role() == v1::METRIC_ROLE_GUARDRAIL) continue;
      *report->add_comparisons() =
          Compare(input, metric, arm, Population::kTriggered, alphas, trusted);
    }
  }
  AdjustPValues(input, report);
}

void AddEffectsByUnitAge(const ReportInput& input, v1::GetReportResponse* report) {
  // A switchback's units meet both arms, and latencies in a shared batch are no effect of an arm.
  if (input.is_switchback()) return;
  for (const v1::ExperimentMetric& metric : input.experiment().metrics()) {
    if (!IsJudged(input, metric)) continue;
    for (int32_t arm = 0; arm < input.experiment().arms_size(); ++arm) {
      if (arm == input.control) continue;
      std::vector<v1::Comparison> by_age;
      for (int32_t age = 0; age < kUnitAges; ++age) {
        const std::optional<v1::Comparison> effect = CompareAtAge(input, metric, arm, age);
        if (effect.has_value()) by_age.push_back(*effect);
      }
      if (by_age.size() < 2) continue;  // nothing to compare with
      report->mutable_effects_by_unit_age()->Add(by_age.begin(), by_age.end());
    }
  }
}

}  // namespace swaa::server
