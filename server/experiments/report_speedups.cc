// How much less than control: five kinds of measurement, each of which answers another question.

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "server/experiments/metric_names.h"
#include "server/experiments/report_parts.h"
#include "server/experiments/statistics/always_valid.h"
#include "server/experiments/statistics/paired_difference.h"

namespace swaa::server {
namespace {

// Tunes the intervals where no metric says what effect matters: of logarithms.
constexpr double kDefaultTau = 0.05;
constexpr Population kAll = Population::kAll;

double TauOf(const ReportInput& input, const std::string& name) {
  for (const v1::ExperimentMetric& metric : input.experiment().metrics()) {
    if (metric.name() == name) return metric.minimum_detectable_effect();
  }
  return kDefaultTau;
}

// `log_effect` is ln (arm / control).
void AddSpeedup(const ReportInput& input, int32_t arm, const std::string& kind,
                const std::string& metric, const EffectEstimate& log_effect, int64_t samples,
                v1::GetReportResponse* report) {
  // Keys are counted: where no group differs from another, nothing is uncertain.
  const bool exact = kind == "counted" && log_effect.standard_error == 0;
  const double half_width =
      exact ? 0
            : AlwaysValidHalfWidth(log_effect.standard_error, TauOf(input, metric),
                                   input.experiment().alpha());
  v1::Speedup& speedup = *report->add_speedups();
  speedup.set_arm(input.ArmName(arm));
  speedup.set_kind(kind);
  speedup.set_metric(metric);
  speedup.set_ratio(std::exp(-log_effect.effect));
  speedup.set_lower(std::exp(-log_effect.effect - half_width));
  speedup.set_upper(std::exp(-log_effect.effect + half_width));
  speedup.set_samples(static_cast<uint64_t>(samples));
}

// Keys attended for each that full attention would have.
RatioEstimate AttendedRatio(const MetricTable& table, int32_t arm) {
  const std::vector<Sum> attended = table.Groups(arm, kAttendedKeys, kAll);
  const std::vector<Sum> full = table.Groups(arm, kFullAttentionAttendedKeys, kAll);
  std::vector<GroupTotals> groups;
  for (size_t group = 0; group < attended.size(); ++group) {
    groups.push_back({attended[group].sum, full[group].sum});
  }
  return EstimateRatio(groups);
}

void AddRatioOfMeans(const ReportInput& input, int32_t arm, const std::string& kind,
                     const std::string& metric, const RatioEstimate& treatment,
                     const RatioEstimate& control, int64_t samples, v1::GetReportResponse* report) {
  if (!treatment.usable() || !control.usable() || treatment.value <= 0 || control.value <= 0) {
    return;
  }
  AddSpeedup(input, arm, kind, metric, LogRatio(treatment, control, input.HasUnequalShares(arm)),
             samples, report);
}

void AddLatencies(const ReportInput& input, int32_t arm, v1::GetReportResponse* report) {
  const MetricTable& table = input.table;
  for (const char* metric :
       {kTimeToFirstTokenSeconds, kInterTokenLatencySeconds, kRequestDurationSeconds}) {
    if (input.is_switchback()) {
      const std::vector<double>& pairs = table.PairDifferences(metric);
      if (pairs.size() < 2) continue;
      AddSpeedup(input, arm, "switchback", metric, PairedDifference(pairs),
                 static_cast<int64_t>(pairs.size()), report);
      continue;
    }
    const RatioEstimate treatment = table.Estimate(arm, metric, kAll);
    const RatioEstimate control = table.Estimate(input.control, metric, kAll);
    if (!treatment.usable() || !control.usable()) continue;
    AddSpeedup(
        input, arm, "observed", metric, Difference(treatment, control, input.HasUnequalShares(arm)),
        table.Total(arm, metric, kAll).count + table.Total(input.control, metric, kAll).count,
        report);
  }
}

// Sums of a shadow metric, whichever of the two arms answered.
std::vector<Sum> BothDirections(const ReportInput& input, const char* name, int32_t arm) {
  std::vector<Sum> groups = input.table.Groups(arm, ShadowMetric(name, input.control), kAll);
  const std::vector<Sum> reverse = input.table.Groups(input.control, ShadowMetric(name, arm), kAll);
  for (size_t group = 0; group < groups.size(); ++group) groups[group] += reverse[group];
  return groups;
}

void AddShadow(const ReportInput& input, int32_t arm, v1::GetReportResponse* report) {
  const std::vector<Sum> groups = BothDirections(input, kShadowLogTimeRatio, arm);
  const RatioEstimate ratio = EstimateRatio(groups);
  if (!ratio.usable()) return;
  // Recorded as ln (control / arm).
  AddSpeedup(input, arm, "shadow", kDeviceSeconds,
             {.effect = -ratio.value, .standard_error = std::sqrt(ratio.variance)},
             static_cast<int64_t>(std::llround(ratio.denominator)), report);
}

void AddAgreement(const ReportInput& input, int32_t arm, int32_t answered_by, int32_t other,
                  v1::GetReportResponse* report) {
  const auto total = [&](const char* name) {
    return input.table.Total(answered_by, ShadowMetric(name, other), kAll);
  };
  const auto mean = [&](const char* name) {
    const Sum sum = total(name);
    return sum.count == 0 ? 0 : sum.sum / static_cast<double>(sum.count);
  };
  const int64_t requests = total(kShadowFirstDivergence).count;
  if (requests == 0) return;
  v1::ShadowAgreement& agreement = *report->add_shadow_agreements();
  agreement.set_arm(input.ArmName(arm));
  agreement.set_answered_by_arm(input.ArmName(answered_by));
  agreement.set_requests(static_cast<uint64_t>(requests));
  agreement.set_tokens(static_cast<uint64_t>(total(kShadowLogprobDifference).count));
  agreement.set_mean_logprob_difference(mean(kShadowLogprobDifference));
  agreement.set_equal_argmax_ratio(mean(kShadowEqualArgmax));
  agreement.set_mean_first_divergence(mean(kShadowFirstDivergence));
  agreement.set_kv_cache_bytes_ratio(std::exp(mean(kShadowLogKvCacheBytesRatio)));
}

}  // namespace

void AddSpeedups(const ReportInput& input, v1::GetReportResponse* report) {
  const MetricTable& table = input.table;
  const auto requests = [&](const char* metric, int32_t arm) {
    return table.Total(arm, metric, kAll).count + table.Total(input.control, metric, kAll).count;
  };
  for (int32_t arm = 0; arm < input.experiment().arms_size(); ++arm) {
    if (arm == input.control) continue;
    AddRatioOfMeans(input, arm, "counted", kAttendedKeys, AttendedRatio(table, arm),
                    AttendedRatio(table, input.control), requests(kAttendedKeys, arm), report);
    AddRatioOfMeans(input, arm, "attributed", kDeviceSeconds,
                    table.Estimate(arm, kTotalDeviceSeconds, kAll),
                    table.Estimate(input.control, kTotalDeviceSeconds, kAll),
                    requests(kTotalDeviceSeconds, arm), report);
    AddShadow(input, arm, report);
    AddLatencies(input, arm, report);
  }
}

void AddShadowAgreements(const ReportInput& input, v1::GetReportResponse* report) {
  for (int32_t arm = 0; arm < input.experiment().arms_size(); ++arm) {
    if (arm == input.control) continue;
    AddAgreement(input, arm, /*answered_by=*/arm, /*other=*/input.control, report);
    AddAgreement(input, arm, /*answered_by=*/input.control, /*other=*/arm, report);
  }
}

}  // namespace swaa::server
