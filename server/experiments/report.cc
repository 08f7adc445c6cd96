// The sample ratio, the arms, and all parts in order.

#include "server/experiments/report.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "server/experiments/assignment.h"
#include "server/experiments/experiment_set.h"
#include "server/experiments/metric_names.h"
#include "server/experiments/report_parts.h"
#include "server/experiments/statistics/quantile_sketch.h"
#include "server/experiments/statistics/sample_ratio.h"
#include "server/observation/prompt_class.h"

namespace swaa::server {
namespace {

constexpr double kQuantiles[] = {0.5, 0.9, 0.95, 0.99};
constexpr int kAllClasses = -1;
// More units in several arms than this, and arms are no longer what they are called.
constexpr double kMaxShareInSeveralArms = 0.01;
// Two arms whose shares of buckets differ by more than this factor are unequal.
constexpr double kEqualShares = 1.05;

void SetTime(int64_t unix_ms, google::protobuf::Timestamp* time) {
  time->set_seconds(unix_ms / 1000);
  time->set_nanos(static_cast<int32_t>(unix_ms % 1000) * 1000000);
}

std::vector<double> SharesOf(const v1::Experiment& experiment) {
  if (experiment.design() == v1::EXPERIMENT_DESIGN_SWITCHBACK) return {};
  std::vector<uint32_t> weights;
  for (const v1::ExperimentArm& arm : experiment.arms()) weights.push_back(arm.weight());
  std::vector<BucketRange> ranges = ArmRanges(weights, experiment.coverage());
  // Paused: the units that there are came at another coverage.
  const bool empty = std::any_of(ranges.begin(), ranges.end(),
                                 [](const BucketRange& range) { return range.size() == 0; });
  if (empty) ranges = ArmRanges(weights, kBuckets);
  double total = 0;
  for (const BucketRange& range : ranges) total += range.size();
  std::vector<double> shares;
  shares.reserve(ranges.size());
  for (const BucketRange& range : ranges) shares.push_back(range.size() / total);
  return shares;
}

// Whether verdicts may be given.
bool CheckSampleRatio(const ReportInput& input, v1::SampleRatioCheck* check) {
  check->set_p_value(1);
  check->set_chi_squared_p_value(1);
  // A switchback's units meet both arms.
  if (input.is_switchback()) return true;
  const std::vector<uint64_t>& units = input.table.units_before_stops();
  const uint64_t total = std::accumulate(units.begin(), units.end(), uint64_t{0});
  for (size_t arm = 0; arm < units.size(); ++arm) {
    check->add_observed_units(units[arm]);
    check->add_expected_units(static_cast<double>(total) * input.shares[arm]);
  }
  const double least_so_far = input.data.revisions.at(input.revision).min_log_sample_ratio_p;
  const double log_p = std::min(least_so_far, LogSampleRatioPValue(units, input.shares));
  check->set_p_value(std::exp(log_p));
  check->set_chi_squared_p_value(SampleRatioChiSquaredPValue(units, input.shares));
  check->set_mismatch(check->p_value() < kSampleRatioAlpha);
  const int64_t several = input.table.units_in_several_arms();
  check->set_units_in_several_arms(static_cast<uint64_t>(several));
  return !check->mismatch() &&
         static_cast<double>(several) <= kMaxShareInSeveralArms * static_cast<double>(total);
}

void AddEstimate(const ReportInput& input, int32_t arm, const std::string& metric,
                 v1::MetricScale scale, Population population, v1::ArmReport* report) {
  const RatioEstimate estimate = input.table.Estimate(arm, metric, population);
  if (estimate.groups == 0) return;
  v1::MetricEstimate& out = *report->add_metrics();
  out.set_metric(metric);
  out.set_units(static_cast<uint64_t>(input.table.Units(arm, population)));
  out.set_requests(static_cast<uint64_t>(std::llround(estimate.denominator)));
  out.set_value(scale == v1::METRIC_SCALE_LOG_MEAN ? std::exp(estimate.value) : estimate.value);
  out.set_standard_error(std::sqrt(estimate.variance));
  out.set_triggered_only(population == Population::kTriggered);
}

void AddEstimates(const ReportInput& input, int32_t arm, v1::ArmReport* report) {
  std::set<std::string> declared;
  for (const v1::ExperimentMetric& metric : input.experiment().metrics()) {
    declared.insert(metric.name());
    AddEstimate(input, arm, metric.name(), metric.scale(), Population::kAll, report);
    if (!input.has_untriggered()) continue;
    AddEstimate(input, arm, metric.name(), metric.scale(), Population::kTriggered, report);
  }
  for (const ServerMetric& metric : kServerMetrics) {
    const std::string name(metric.name);
    if (declared.contains(name)) continue;
    AddEstimate(input, arm, name, metric.scale, Population::kAll, report);
  }
}

QuantileSketch SketchOf(const ReportInput& input, int32_t arm, const std::string& metric,
                        int prompt_class) {
  QuantileSketch sketch;
  const auto& sketches = input.data.observations.sketches;
  for (auto it = sketches.lower_bound({input.revision, arm, metric, 0, 0});
       it != sketches.end() && it->first.revision == input.revision && it->first.arm == arm &&
       it->first.metric == metric;
       ++it) {
    if (prompt_class != kAllClasses && it->first.prompt_class != prompt_class) continue;
    if (it->first.group < 0 || it->first.group >= kSketchGroups) continue;
    sketch.Add(it->first.group, it->second);
  }
  return sketch;
}

void AddLatencies(const ReportInput& input, int32_t arm, v1::ArmReport* report) {
  for (const char* metric : kSketchedMetrics) {
    for (int prompt_class = kAllClasses; prompt_class < kPromptClasses; ++prompt_class) {
      const QuantileSketch sketch = SketchOf(input, arm, metric, prompt_class);
      if (sketch.count() == 0) continue;
      for (const double quantile : kQuantiles) {
        const QuantileEstimate estimate = sketch.Quantile(quantile);
        v1::LatencyQuantile& out = *report->add_latencies();
        out.set_metric(metric);
        if (prompt_class != kAllClasses) out.set_prompt_len(kPromptClassNames[prompt_class]);
        out.set_quantile(quantile);
        out.set_requests(static_cast<uint64_t>(estimate.count));
        if (!estimate.enough) continue;
        out.set_seconds(estimate.value);
        out.set_lower(estimate.lower);
        out.set_upper(estimate.upper);
      }
    }
  }
}

double Mean(const Sum& sum) {
  return sum.count == 0 ? 0 : sum.sum / static_cast<double>(sum.count);
}

void AddArm(const ReportInput& input, int32_t arm, v1::GetReportResponse* report) {
  const auto total = [&](const char* metric) {
    return input.table.Total(arm, metric, Population::kAll);
  };
  v1::ArmReport& out = *report->add_arms();
  out.set_arm(input.ArmName(arm));
  out.set_recipe_name(input.experiment().arms(arm).recipe_name());
  out.set_units(static_cast<uint64_t>(input.table.Units(arm, Population::kAll)));
  out.set_requests(static_cast<uint64_t>(total(kExposures).count));
  out.set_triggered_requests(
      static_cast<uint64_t>(input.table.Total(arm, kErrorRate, Population::kTriggered).count));
  out.set_device_seconds(total(kTotalDeviceSeconds).sum);
  out.set_attended_keys(total(kAttendedKeys).sum);
  out.set_full_attention_attended_keys(total(kFullAttentionAttendedKeys).sum);
  out.set_mean_peak_kv_cache_bytes(Mean(total(kPeakKvCacheBytes)));
  out.set_cached_prompt_ratio(Mean(total(kCachedPromptRatio)));
  out.set_preemptions(total(kPreemptions).sum);
  AddEstimates(input, arm, &out);
  AddLatencies(input, arm, &out);
}

}  // namespace

bool ReportInput::WasStopped(int32_t arm) const {
  return data.stops.contains({revision, arm}) && !data.stops.contains({revision, kAllArms});
}

bool ReportInput::HasUnequalShares(int32_t arm) const {
  if (shares.empty()) return false;
  const double ratio = shares[static_cast<size_t>(arm)] / shares[static_cast<size_t>(control)];
  return std::max(ratio, 1 / ratio) > kEqualShares;
}

namespace {

double StepModelErrorOf(const MetricTable& table, int32_t arms) {
  Sum all;
  for (int32_t arm = 0; arm < arms; ++arm)
    all += table.Total(arm, kStepModelError, Population::kAll);
  return all.count > 0 ? all.sum / static_cast<double>(all.count) : 0;
}

}  // namespace

absl::StatusOr<v1::GetReportResponse> MakeReport(const ExperimentData& data, uint64_t revision,
                                                 int64_t now_ms) {
  const auto record = data.revisions.find(revision);
  if (record == data.revisions.end()) {
    return absl::NotFoundError(
        absl::StrCat("revision: nothing is known of ", revision, "; leave it out for the newest"));
  }
  SWAA_ASSIGN_OR_RETURN(const StoredRevision stored, ParseRevisionJson(record->second.config_json));
  const MetricTable table(data, revision, stored.experiment, now_ms);
  const ReportInput input = {data,
                             revision,
                             stored,
                             table,
                             SharesOf(stored.experiment),
                             FindArm(stored.experiment, stored.experiment.control_arm()),
                             StepModelErrorOf(table, stored.experiment.arms_size())};

  v1::GetReportResponse report;
  *report.mutable_status() = StatusOf(stored.experiment, revision, now_ms, data.stops);
  SetTime(now_ms, report.mutable_report_time());
  if (table.first_exposure_ms().has_value()) {
    SetTime(*table.first_exposure_ms(), report.mutable_first_exposure_time());
  }
  const bool trusted = CheckSampleRatio(input, report.mutable_sample_ratio_check());
  for (int32_t arm = 0; arm < stored.experiment.arms_size(); ++arm) AddArm(input, arm, &report);
  AddComparisons(input, trusted, &report);
  AddEffectsByUnitAge(input, &report);
  AddSpeedups(input, &report);
  AddShadowAgreements(input, &report);
  for (const std::string& instance : data.instance_ids) report.add_instance_ids(instance);
  report.set_dropped_observations(
      static_cast<uint64_t>(std::max<int64_t>(0, data.observations.dropped)));
  AddWarnings(input, &report);
  return report;
}

absl::StatusOr<uint64_t> NewestRevision(const ExperimentData& data,
                                        const std::string& experiment_id) {
  const std::pair<const uint64_t, RevisionRecord>* newest = nullptr;
  for (const auto& entry : data.revisions) {
    if (entry.second.experiment_id != experiment_id) continue;
    // One that is in force before one that has ended, then the later one.
    const auto rank = [](const RevisionRecord& record) {
      return std::pair(record.ended_ms == 0, record.started_ms);
    };
    if (newest == nullptr || rank(entry.second) > rank(newest->second)) newest = &entry;
  }
  if (newest != nullptr) return newest->first;
  return absl::NotFoundError(absl::StrCat("experiment_id: there is no experiment ",
                                          QuotedValue(experiment_id), "; there are ",
                                          absl::StrJoin(ExperimentIds(data), ", ")));
}

std::vector<std::string> ExperimentIds(const ExperimentData& data) {
  std::set<std::string> ids;
  for (const auto& [revision, record] : data.revisions) ids.insert(record.experiment_id);
  return {ids.begin(), ids.end()};
}

}  // namespace swaa::server
