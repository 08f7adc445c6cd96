// Sums by group, units and pairs of one revision.

#include "server/experiments/metric_table.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "server/experiments/experiment_definition.h"
#include "server/experiments/experiment_set.h"

namespace swaa::server {
namespace {

// When an arm was first stopped, or the experiment as a whole.
int64_t StopMs(const ExperimentData& data, uint64_t revision, int32_t arm) {
  int64_t first = std::numeric_limits<int64_t>::max();
  for (const int32_t stopped : {arm, kAllArms}) {
    const auto found = data.stops.find({revision, stopped});
    if (found != data.stops.end()) first = std::min(first, found->second.at_ms);
  }
  return first;
}

bool IsValidGroup(int32_t group) { return 0 <= group && group < kUnitGroups; }

}  // namespace

MetricTable::MetricTable(const ExperimentData& data, uint64_t revision,
                         const v1::Experiment& experiment, int64_t now_ms)
    : units_(static_cast<size_t>(experiment.arms_size())),
      triggered_units_(units_.size()),
      units_before_stops_(units_.size()) {
  for (const auto& [key, sum] : data.observations.sums) {
    if (key.revision != revision || !IsValidGroup(key.group)) continue;
    At(key.arm, key.metric, key.triggered, key.unit_age, key.group) += sum;
  }
  AddOutcomes(data, revision, experiment);
  AddUnits(data, revision);
  const int64_t window_ms = int64_t{experiment.window_seconds()} * 1000;
  if (window_ms > 0) {
    AddPairs(data, revision, FindArm(experiment, experiment.control_arm()),
             (now_ms - window_ms) / (2 * window_ms));
  }
}

Sum& MetricTable::At(int32_t arm, const std::string& metric, bool triggered, int32_t unit_age,
                     int32_t group) {
  std::vector<Sum>& groups = sums_[{arm, metric}][triggered][static_cast<size_t>(unit_age)];
  groups.resize(kUnitGroups);
  return groups[static_cast<size_t>(group)];
}

void MetricTable::AddOutcomes(const ExperimentData& data, uint64_t revision,
                              const v1::Experiment& experiment) {
  std::map<std::string, v1::MetricScale> scales;
  for (const v1::ExperimentMetric& metric : experiment.metrics()) {
    scales[metric.name()] = metric.scale();
  }
  for (const auto& [key, outcome] : data.outcomes) {
    const OutcomeScope& scope = outcome.scope;
    const auto scale = scales.find(key.metric);
    if (scope.revision != revision || scale == scales.end() || !IsValidGroup(scope.group) ||
        scope.end_ms > StopMs(data, revision, scope.arm)) {
      continue;
    }
    const bool logarithmic = scale->second == v1::METRIC_SCALE_LOG_MEAN;
    if (logarithmic && outcome.value <= 0) continue;
    At(scope.arm, key.metric, scope.triggered, scope.unit_age, scope.group) +=
        {1, logarithmic ? std::log(outcome.value) : outcome.value};
  }
}

void MetricTable::AddUnits(const ExperimentData& data, uint64_t revision) {
  int64_t first_stop = std::numeric_limits<int64_t>::max();
  for (const auto& [key, stop] : data.stops) {
    if (key.revision == revision) first_stop = std::min(first_stop, stop.at_ms);
  }
  const auto begin = data.observations.units.lower_bound({revision, 0});
  for (auto it = begin; it != data.observations.units.end() && it->first.revision == revision;
       ++it) {
    const UnitRecord& unit = it->second;
    if (unit.arm < 0 || unit.arm >= static_cast<int32_t>(units_.size())) continue;
    const size_t arm = static_cast<size_t>(unit.arm);
    ++units_[arm];
    triggered_units_[arm] += unit.trigger_ms > 0;
    units_before_stops_[arm] += unit.first_ms < first_stop;
    units_in_several_arms_ += std::popcount(unit.arms_seen) > 1;
    first_exposure_ms_ = std::min(first_exposure_ms_.value_or(unit.first_ms), unit.first_ms);
  }
}

void MetricTable::AddPairs(const ExperimentData& data, uint64_t revision, int32_t control,
                           int64_t pairs_over) {
  std::map<std::pair<std::string, int64_t>, std::array<Sum, 2>> pairs;
  for (const auto& [key, sum] : data.observations.pairs) {
    if (key.revision != revision || key.pair >= pairs_over) continue;
    pairs[{key.metric, key.pair}][key.arm == control ? 0 : 1] += sum;
  }
  for (const auto& [key, arms] : pairs) {
    if (arms[0].count == 0 || arms[1].count == 0) continue;
    pair_differences_[key.first].push_back(arms[1].sum / static_cast<double>(arms[1].count) -
                                           arms[0].sum / static_cast<double>(arms[0].count));
  }
}

std::vector<Sum> MetricTable::Groups(int32_t arm, const std::string& metric, Population population,
                                     std::optional<int32_t> unit_age) const {
  std::vector<Sum> groups(kUnitGroups);
  const auto found = sums_.find({arm, metric});
  if (found == sums_.end()) return groups;
  const auto add = [&](const std::array<std::vector<Sum>, kUnitAges>& by_age) {
    for (int32_t age = 0; age < kUnitAges; ++age) {
      if (unit_age.has_value() && age != *unit_age) continue;
      const std::vector<Sum>& more = by_age[static_cast<size_t>(age)];
      for (size_t group = 0; group < more.size(); ++group) groups[group] += more[group];
    }
  };
  if (population != Population::kTriggered) add(found->second[0]);
  if (population != Population::kUntriggered) add(found->second[1]);
  return groups;
}

Sum MetricTable::Total(int32_t arm, const std::string& metric, Population population) const {
  Sum total;
  for (const Sum& group : Groups(arm, metric, population)) total += group;
  return total;
}

RatioEstimate MetricTable::Estimate(int32_t arm, const std::string& metric,
                                    Population population) const {
  return EstimateRatio(Groups(arm, metric, population));
}

int64_t MetricTable::Units(int32_t arm, Population population) const {
  const size_t index = static_cast<size_t>(arm);
  return population == Population::kTriggered ? triggered_units_[index] : units_[index];
}

const std::vector<double>& MetricTable::PairDifferences(const std::string& metric) const {
  static const std::vector<double>* const kNone = new std::vector<double>();
  const auto found = pair_differences_.find(metric);
  return found == pair_differences_.end() ? *kNone : found->second;
}

}  // namespace swaa::server
