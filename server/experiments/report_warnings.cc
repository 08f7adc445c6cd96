// What stands between figures and conclusions, in words.

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "server/experiments/experiment_set.h"
#include "server/experiments/metric_names.h"
#include "server/experiments/report_parts.h"
#include "server/experiments/statistics/always_valid.h"
#include "server/experiments/statistics/paired_difference.h"

namespace swaa::server {
namespace {

// Of the checks on requests before their unit's first trigger, all together.
constexpr double kUntriggeredAlpha = 0.01;
constexpr double kCacheRatioApart = 0.05;
constexpr double kEndedRatioApart = 0.01;
constexpr int64_t kWeekMs = int64_t{7} * 24 * 3600 * 1000;

class Warnings {
 public:
  explicit Warnings(v1::GetReportResponse* report) : report_(report) {}
  template <typename... Parts>
  void Add(const Parts&... parts) {
    report_->add_warnings(absl::StrCat(parts...));
  }

 private:
  v1::GetReportResponse* const report_;
};

void WarnOfUnits(const ReportInput& input, const v1::GetReportResponse& report,
                 Warnings* warnings) {
  const v1::SampleRatioCheck& check = report.sample_ratio_check();
  if (check.mismatch()) {
    warnings->Add(absl::StrFormat(
        "Sample ratio mismatch (p = %.2g): units did not fall into the arms as they should have, "
        "so something loses or adds them in one arm. No result below can be trusted; look for "
        "the cause first (clients that retry, crash or are logged out in one arm, a change of "
        "weights).",
        check.p_value()));
  }
  uint64_t total = 0;
  for (const uint64_t units : check.observed_units()) total += units;
  if (check.units_in_several_arms() * 100 > total) {
    warnings->Add(check.units_in_several_arms(), " of ", total, " units were in several arms, ",
                  "more than 1 %: no result below can be trusted. Replicas with different ",
                  "configurations do this.");
  }
}

void WarnOfStepModel(const ReportInput& input, Warnings* warnings) {
  if (input.step_model_error <= kMostStepModelError) return;
  warnings->Add(
      absl::StrFormat("Attributed device time is not to be trusted: the model of a step's time was "
                      "off by %.0f %% on "
                      "average. Look at swaa_step_model_error_ratio: other work on the device, or "
                      "too little traffic "
                      "to tell costs apart, does this.",
                      100 * input.step_model_error));
}

// Requests before their unit's first trigger are computed the same in every arm: a test of the
// experiment itself.
void WarnOfUntriggered(const ReportInput& input, Warnings* warnings) {
  if (!input.has_untriggered() || input.is_switchback()) return;
  std::vector<const v1::ExperimentMetric*> outcomes;
  for (const v1::ExperimentMetric& metric : input.experiment().metrics()) {
    if (FindServerMetric(metric.name()) == nullptr) outcomes.push_back(&metric);
  }
  const size_t checks = outcomes.size() * static_cast<size_t>(input.experiment().arms_size() - 1);
  for (const v1::ExperimentMetric* metric : outcomes) {
    for (int32_t arm = 0; arm < input.experiment().arms_size(); ++arm) {
      if (arm == input.control) continue;
      const auto estimate = [&](int32_t of) {
        return input.table.Estimate(of, metric->name(), Population::kUntriggered);
      };
      const RatioEstimate treatment = estimate(arm);
      const RatioEstimate control = estimate(input.control);
      if (!treatment.usable() || !control.usable()) continue;
      const EffectEstimate effect = Difference(treatment, control, input.HasUnequalShares(arm));
      const double p = AlwaysValidPValue(effect.effect, effect.standard_error,
                                         metric->minimum_detectable_effect());
      if (p * static_cast<double>(checks) >= kUntriggeredAlpha) continue;
      warnings->Add("Arm ", input.ArmName(arm), " differs from ", input.ArmName(input.control),
                    " in ", metric->name(), absl::StrFormat(" (p = %.2g)", p),
                    " on requests that both recipes compute the same. The assignment, the ",
                    "recording of outcomes or the engine is at fault; without session affinity ",
                    "to replicas take it as a hint.");
    }
  }
}

void WarnOfStops(const ReportInput& input, Warnings* warnings) {
  for (int32_t arm = 0; arm < input.experiment().arms_size(); ++arm) {
    const auto stop = input.data.stops.find({input.revision, arm});
    if (stop == input.data.stops.end()) continue;
    warnings->Add("Arm ", input.ArmName(arm), " was stopped (", stop->second.reason,
                  "). Its figures end there, while other arms may have gone on: they are biased ",
                  "by the stop and by what came later, and its goals get no verdict.");
  }
}

void WarnOfLoss(const ReportInput& input, const v1::GetReportResponse& report, Warnings* warnings) {
  if (report.dropped_observations() > 0) {
    warnings->Add(report.dropped_observations(), " observations were lost, because storage took ",
                  "none. If loss differs between arms, so do the figures.");
  }
  for (const std::string& warning : input.data.warnings) warnings->Add(warning);
  // Requests that were assigned, but of which no end is recorded.
  std::vector<double> ended;
  for (int32_t arm = 0; arm < input.experiment().arms_size(); ++arm) {
    const auto exposed = input.table.Total(arm, kExposures, Population::kAll).count;
    const auto ends = input.table.Total(arm, kErrorRate, Population::kAll).count;
    if (exposed < 1000) return;
    ended.push_back(static_cast<double>(ends) / static_cast<double>(exposed));
  }
  const auto [least, most] = std::minmax_element(ended.begin(), ended.end());
  if (*most - *least <= kEndedRatioApart) return;
  warnings->Add(
      absl::StrFormat("Of the requests assigned, %.1f %% have ended in arm %s, but "
                      "%.1f %% in arm %s: what is missing is missing from one arm more.",
                      100 * *least, input.ArmName(int32_t(least - ended.begin())), 100 * *most,
                      input.ArmName(int32_t(most - ended.begin()))));
}

std::vector<std::string> UnjudgedMetrics(const ReportInput& input) {
  std::vector<std::string> names;
  for (const v1::ExperimentMetric& metric : input.experiment().metrics()) {
    if (!IsJudged(input, metric)) names.push_back(metric.name());
  }
  return names;
}

void WarnOfDesign(const ReportInput& input, Warnings* warnings) {
  const std::vector<std::string> unjudged = UnjudgedMetrics(input);
  if (!unjudged.empty() && input.is_switchback()) {
    warnings->Add("No verdict on ", absl::StrJoin(unjudged, ", "),
                  ": users meet both arms of a switchback, so outcomes cannot tell them apart. ",
                  "Judge quality by EXPERIMENT_DESIGN_UNIT.");
  } else if (!unjudged.empty()) {
    warnings->Add("Shared batch: no verdict on ", absl::StrJoin(unjudged, ", "),
                  ". Requests of all arms are computed together and wait for each other, so a ",
                  "difference between arms is not that between recipes, in sign or size. Judge ",
                  "cost by `attributed`, and latency by EXPERIMENT_DESIGN_SWITCHBACK.");
  }
  const size_t pairs = input.table.PairDifferences(kTimeToFirstTokenSeconds).size();
  if (input.is_switchback() && pairs < kLeastPairs) {
    warnings->Add(pairs, " pairs of windows: a verdict needs ", kLeastPairs, ".");
  }
}

void WarnOfCaches(const ReportInput& input, const v1::GetReportResponse& report,
                  Warnings* warnings) {
  if (input.is_switchback()) return;
  const double control = report.arms(input.control).cached_prompt_ratio();
  for (int32_t arm = 0; arm < input.experiment().arms_size(); ++arm) {
    const double ratio = report.arms(arm).cached_prompt_ratio();
    if (std::abs(ratio - control) > kCacheRatioApart) {
      warnings->Add(absl::StrFormat(
          "Arm %s found %.0f %% of its prompts in the prefix cache, %s %.0f %%. Recipes do not "
          "share what is cached of long prompts, so a smaller arm finds less: compare cost at "
          "equal shares.",
          input.ArmName(arm), 100 * ratio, input.ArmName(input.control), 100 * control));
    }
  }
}

}  // namespace

void AddWarnings(const ReportInput& input, v1::GetReportResponse* report) {
  Warnings warnings(report);
  WarnOfStepModel(input, &warnings);
  WarnOfUnits(input, *report, &warnings);
  WarnOfUntriggered(input, &warnings);
  WarnOfStops(input, &warnings);
  WarnOfLoss(input, *report, &warnings);
  WarnOfDesign(input, &warnings);
  WarnOfCaches(input, *report, &warnings);
  const auto first = input.table.first_exposure_ms();
  if (first.has_value() && ToUnixMs(report->report_time()) - *first < kWeekMs) {
    warnings.Add("The experiment has run for less than a week: days differ, and what is new wears ",
                 "off. Run whole weeks.");
  }
}

}  // namespace swaa::server
