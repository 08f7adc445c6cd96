// What was recorded of one revision, by arm and metric: recorded sums and outcomes in one form.

#ifndef SWAA_SERVER_EXPERIMENTS_METRIC_TABLE_H_
#define SWAA_SERVER_EXPERIMENTS_METRIC_TABLE_H_

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/experiments/experiment_data.h"
#include "server/experiments/statistics/ratio_estimate.h"
#include "swaa/v1/experiment.pb.h"

namespace swaa::server {

// Which requests: those of units from their first triggered request on, those before, or both.
enum class Population { kAll, kTriggered, kUntriggered };

// Immutable value.
class MetricTable {
 public:
  // Outcomes are taken from `data.outcomes`; those of undeclared metrics, and of requests that
  // ended after their arm's stop, are left out.
  // A switchback's pair counts when it is over, and another window for what it began.
  MetricTable(const ExperimentData& data, uint64_t revision, const v1::Experiment& experiment,
              int64_t now_ms);

  // [kUnitGroups]; absent `unit_age`: of units of every age.
  std::vector<Sum> Groups(int32_t arm, const std::string& metric, Population population,
                          std::optional<int32_t> unit_age = std::nullopt) const;
  Sum Total(int32_t arm, const std::string& metric, Population population) const;
  RatioEstimate Estimate(int32_t arm, const std::string& metric, Population population) const;

  // Units by the arm of their first exposure; kTriggered: those that were triggered.
  int64_t Units(int32_t arm, Population population) const;
  // Units first seen before any arm was stopped: what the sample ratio may be checked on.
  const std::vector<uint64_t>& units_before_stops() const { return units_before_stops_; }
  int64_t units_in_several_arms() const { return units_in_several_arms_; }
  // The earliest exposure, Unix milliseconds.
  std::optional<int64_t> first_exposure_ms() const { return first_exposure_ms_; }

  // A switchback's differences of means, arm less control, of pairs in which both had requests.
  const std::vector<double>& PairDifferences(const std::string& metric) const;

 private:
  using Key = std::pair<int32_t, std::string>;  // arm, metric

  void AddOutcomes(const ExperimentData& data, uint64_t revision, const v1::Experiment& experiment);
  void AddUnits(const ExperimentData& data, uint64_t revision);
  void AddPairs(const ExperimentData& data, uint64_t revision, int32_t control, int64_t pairs_over);
  Sum& At(int32_t arm, const std::string& metric, bool triggered, int32_t unit_age, int32_t group);

  // By triggered, unit's age, group; empty where nothing was seen.
  std::map<Key, std::array<std::array<std::vector<Sum>, kUnitAges>, 2>> sums_;
  std::vector<int64_t> units_;
  std::vector<int64_t> triggered_units_;
  std::vector<uint64_t> units_before_stops_;
  int64_t units_in_several_arms_ = 0;
  std::optional<int64_t> first_exposure_ms_;
  std::map<std::string, std::vector<double>> pair_differences_;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_EXPERIMENTS_METRIC_TABLE_H_
