// What is recorded of requests in experiments.

#include "server/experiments/request_recorder.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "absl/time/time.h"
#include "server/experiments/metric_names.h"
#include "server/experiments/statistics/quantile_sketch.h"

namespace swaa::server {
namespace {

// One request's values, each under its metric's name.
class Values {
 public:
  Values(const ExperimentTag& tag, const OutcomeScope& scope, Observations* out)
      : tag_(tag), scope_(scope), out_(out) {}

  void Plain(const std::string& metric, double value, int64_t count = 1) {
    out_->sums[{scope_.revision, scope_.arm, metric, scope_.triggered, scope_.prompt_class,
                scope_.group, scope_.unit_age}] += Sum{count, value};
    const bool switchback = tag_.experiment->proto().design() == v1::EXPERIMENT_DESIGN_SWITCHBACK;
    if (switchback && !tag_.washout) {
      out_->pairs[{scope_.revision, metric, tag_.pair, scope_.arm}] += Sum{count, value};
    }
  }
  // A latency: its logarithm is summed, and its bin counted.
  void Latency(const std::string& metric, double seconds) {
    if (seconds <= 0) return;
    Plain(metric, std::log(seconds));
    ++Bins(metric)[SketchBin(seconds)];
  }
  void Log(const std::string& metric, double value) {
    if (value > 0) Plain(metric, std::log(value));
  }
  void Never(const std::string& metric) { ++Bins(metric)[kInfiniteBin]; }

 private:
  SketchBins& Bins(const std::string& metric) {
    return out_->sketches[{scope_.revision, scope_.arm, metric, scope_.prompt_class,
                           scope_.group / (kUnitGroups / kSketchGroups)}];
  }

  const ExperimentTag& tag_;
  const OutcomeScope& scope_;
  Observations* const out_;
};

double Ratio(double part, double whole) { return whole > 0 ? part / whole : 0; }

void AddLatencies(const RequestRecord& record, Values* values) {
  const GenerationStats& stats = record.stats;
  const bool cancelled = record.status.code() == absl::StatusCode::kCancelled;
  if (stats.completion_tokens > 0) {
    values->Latency(kTimeToFirstTokenSeconds, absl::ToDoubleSeconds(stats.time_to_first_token));
  } else if (!record.status.ok() && !cancelled) {
    // An arm must not look fast by failing.
    values->Never(kTimeToFirstTokenSeconds);
  }
  if (stats.completion_tokens > 1) {
    values->Latency(kInterTokenLatencySeconds,
                    absl::ToDoubleSeconds(stats.decode_time) / (stats.completion_tokens - 1));
  }
  if (record.status.ok()) {
    values->Latency(kRequestDurationSeconds, absl::ToDoubleSeconds(record.total));
  } else if (!cancelled) {
    values->Never(kRequestDurationSeconds);
  }
}

}  // namespace

static_assert(kPromptClassNames.size() == kPromptClasses);

void RequestRecorder::Load(const std::set<uint64_t>& revisions, const ExperimentData& data) {
  std::lock_guard lock(mutex_);
  for (const uint64_t revision : revisions) revisions_[revision] = {};
  Note(data.observations);
  for (const auto& [key, outcome] : data.outcomes) {
    const OutcomeScope& scope = outcome.scope;
    if (!revisions.contains(scope.revision)) continue;
    const auto found = data.revisions.find(scope.revision);
    if (found == data.revisions.end()) continue;
    const absl::StatusOr<StoredRevision> stored = ParseRevisionJson(found->second.config_json);
    if (!stored.ok()) continue;
    for (const v1::ExperimentMetric& metric : stored->experiment.metrics()) {
      if (metric.name() != key.metric) continue;
      const double value =
          metric.scale() == v1::METRIC_SCALE_LOG_MEAN ? std::log(outcome.value) : outcome.value;
      revisions_[scope.revision].totals[{scope.revision, scope.arm, key.metric, scope.triggered,
                                         scope.prompt_class, scope.group, scope.unit_age}] +=
          Sum{1, value};
    }
  }
}

void RequestRecorder::Keep(const std::set<uint64_t>& revisions) {
  std::lock_guard lock(mutex_);
  std::erase_if(revisions_, [&](const auto& entry) { return !revisions.contains(entry.first); });
}

const RequestRecorder::Unit* RequestRecorder::FindUnit(uint64_t revision, uint64_t unit_key) const {
  const auto kept = revisions_.find(revision);
  if (kept == revisions_.end()) return nullptr;
  const auto unit = kept->second.units.find(unit_key);
  return unit == kept->second.units.end() ? nullptr : &unit->second;
}

bool RequestRecorder::HasTriggered(uint64_t revision, uint64_t unit_key) const {
  const Unit* unit = FindUnit(revision, unit_key);
  return unit != nullptr && unit->triggered;
}

void RequestRecorder::Note(const Observations& observations) {
  for (const auto& [key, sum] : observations.sums) {
    const auto kept = revisions_.find(key.revision);
    if (kept != revisions_.end()) kept->second.totals[key] += sum;
  }
  for (const auto& [key, record] : observations.units) {
    const auto kept = revisions_.find(key.revision);
    if (kept == revisions_.end()) continue;
    Revision& revision = kept->second;
    const auto [it, added] = revision.units.try_emplace(key.unit_key);
    Unit& unit = it->second;
    if (added) {
      unit.arm = record.arm;
      unit.first_ms = record.first_ms;
      ++revision.units_by_arm[record.arm];
    }
    unit.first_ms = std::min(unit.first_ms, record.first_ms);
    unit.arms_seen |= record.arms_seen;
    unit.triggered = unit.triggered || record.trigger_ms > 0;
  }
}

Observations RequestRecorder::Expose(const ExperimentTag& tag, int64_t now_ms) {
  Observations out;
  const uint64_t revision = tag.experiment->revision;
  const uint64_t arm_bit = uint64_t{1} << tag.arm;
  out.sums[{revision, tag.arm, kExposures, false, 0, tag.group, 0}] = {1, 1};
  std::lock_guard lock(mutex_);
  const Unit* unit = FindUnit(revision, tag.unit_key);
  if (unit == nullptr || (unit->arms_seen & arm_bit) == 0) {
    out.units[{revision, tag.unit_key}] = {
        .arm = tag.arm, .first_ms = now_ms, .arms_seen = arm_bit};
  }
  Note(out);
  return out;
}

OutcomeScope RequestRecorder::ScopeOf(const ExperimentTag& tag, const GenerationStats& stats,
                                      int64_t now_ms) {
  OutcomeScope scope{.revision = tag.experiment->revision,
                     .arm = tag.arm,
                     .group = tag.group,
                     .unit_key = tag.unit_key,
                     .end_ms = now_ms,
                     .prompt_class = PromptClassIndex(stats.prompt_tokens)};
  const int64_t positions = int64_t{stats.prompt_tokens} + stats.completion_tokens;
  std::lock_guard lock(mutex_);
  const Unit* unit = FindUnit(scope.revision, scope.unit_key);
  scope.triggered =
      (unit != nullptr && unit->triggered) || tag.experiment->definition.Triggers(positions);
  if (unit != nullptr) scope.unit_age = UnitAgeIndex(unit->first_ms, now_ms);
  return scope;
}

Observations RequestRecorder::End(const ExperimentTag& tag, const RequestRecord& record,
                                  double step_model_error, int64_t now_ms) {
  const GenerationStats& stats = record.stats;
  const OutcomeScope scope = ScopeOf(tag, stats, now_ms);
  Observations out;
  Values values(tag, scope, &out);
  AddLatencies(record, &values);
  const bool cancelled = record.status.code() == absl::StatusCode::kCancelled;
  values.Plain(kErrorRate, record.status.ok() || cancelled ? 0 : 1);
  values.Plain(kCancelledRate, cancelled ? 1 : 0);
  if (record.accepted) {
    values.Plain(kCompletionTokens, stats.completion_tokens);
    values.Plain(kCachedPromptRatio, Ratio(stats.cached_prompt_tokens, stats.prompt_tokens));
    values.Plain(kPreemptions, stats.preemptions);
    values.Plain(kPeakKvCacheBytes, static_cast<double>(stats.peak_kv_bytes));
    values.Plain(kAttendedKeys, static_cast<double>(stats.attended_keys));
    values.Plain(kFullAttentionAttendedKeys,
                 static_cast<double>(stats.full_attention_attended_keys));
    if (stats.device_seconds.has_value()) {
      values.Log(kDeviceSeconds, *stats.device_seconds);
      values.Plain(kTotalDeviceSeconds, *stats.device_seconds);
      values.Plain(kStepModelError, step_model_error);
    }
  }
  std::lock_guard lock(mutex_);
  if (scope.triggered && !HasTriggered(scope.revision, scope.unit_key)) {
    out.units[{scope.revision, scope.unit_key}] = {.arm = tag.arm,
                                                   .first_ms = now_ms,
                                                   .trigger_ms = now_ms,
                                                   .arms_seen = uint64_t{1} << tag.arm};
  }
  Note(out);
  return out;
}

Observations RequestRecorder::Shadow(const ExperimentTag& tag, const OutcomeScope& scope,
                                     const ShadowComparison& comparison) {
  Observations out;
  Values values(tag, scope, &out);
  const auto name = [&](const char* metric) { return ShadowMetric(metric, comparison.other_arm); };
  values.Plain(name(kShadowLogTimeRatio), comparison.log_time_ratio);
  values.Plain(name(kShadowLogKvCacheBytesRatio), comparison.log_kv_bytes_ratio);
  values.Plain(name(kShadowLogprobDifference), comparison.logprob_difference, comparison.tokens);
  values.Plain(name(kShadowEqualArgmax), static_cast<double>(comparison.equal_argmax),
               comparison.tokens);
  values.Plain(name(kShadowFirstDivergence), static_cast<double>(comparison.first_divergence));
  return out;
}

void RequestRecorder::CountOutcome(const OutcomeScope& scope, const v1::ExperimentMetric& metric,
                                   double value) {
  if (metric.scale() == v1::METRIC_SCALE_LOG_MEAN) value = std::log(value);
  std::lock_guard lock(mutex_);
  const auto found = revisions_.find(scope.revision);
  if (found == revisions_.end()) return;
  found->second.totals[{scope.revision, scope.arm, metric.name(), scope.triggered,
                        scope.prompt_class, scope.group, scope.unit_age}] += Sum{1, value};
}

std::map<SumKey, Sum> RequestRecorder::Totals(uint64_t revision) const {
  std::lock_guard lock(mutex_);
  const auto found = revisions_.find(revision);
  return found == revisions_.end() ? std::map<SumKey, Sum>() : found->second.totals;
}

std::vector<int64_t> RequestRecorder::UnitCounts(uint64_t revision, int32_t num_arms) const {
  std::vector<int64_t> counts(num_arms);
  std::lock_guard lock(mutex_);
  const auto found = revisions_.find(revision);
  if (found == revisions_.end()) return counts;
  for (const auto& [arm, units] : found->second.units_by_arm) {
    if (arm >= 0 && arm < num_arms) counts[arm] = units;
  }
  return counts;
}

}  // namespace swaa::server
