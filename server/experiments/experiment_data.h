// What experiments record, as plain data that adds up: from one server's requests to a file, from
// many replicas' files to a report.
//
// Units are hashed into 256 groups, and only counts and sums by group are kept. Groups are
// independent of each other whoever served a unit, so sums from several replicas add exactly; sums
// of squares by unit would not, as one unit's requests may be served by several replicas.

#ifndef SWAA_SERVER_EXPERIMENTS_EXPERIMENT_DATA_H_
#define SWAA_SERVER_EXPERIMENTS_EXPERIMENT_DATA_H_

#include <array>
#include <compare>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace swaa::server {

inline constexpr int kUnitGroups = 256;   // of sums: unit hash >> 56
inline constexpr int kSketchGroups = 64;  // of sketches: a sum's group / 4
inline constexpr int kPromptClasses = 5;  // le_2k, le_8k, le_32k, le_128k, gt_128k
inline constexpr int kUnitAges = 3;       // of a unit at a request: UnitAgeIndex
inline constexpr std::array<const char*, kUnitAges> kUnitAgeNames = {"first_day", "first_week",
                                                                     "later"};

inline constexpr int64_t kMillisecondsPerDay = 86400000;

// How long a unit has had its arm: less than a day, less than a week, longer. What is new may
// please or annoy for no other reason; what is left after a week is the effect.
inline int32_t UnitAgeIndex(int64_t first_ms, int64_t now_ms) {
  const int64_t days = (now_ms - first_ms) / kMillisecondsPerDay;
  return days < 1 ? 0 : days < 7 ? 1 : 2;
}

// The sum of a metric's values over requests: logarithms of them with METRIC_SCALE_LOG_MEAN.
struct SumKey {
  uint64_t revision = 0;
  int32_t arm = 0;
  std::string metric;
  bool triggered = false;  // the unit's first triggered request, and all later ones
  int32_t prompt_class = 0;
  int32_t group = 0;     // [0, kUnitGroups)
  int32_t unit_age = 0;  // [0, kUnitAges)
  auto operator<=>(const SumKey&) const = default;
};
struct Sum {
  int64_t count = 0;
  double sum = 0;
  Sum& operator+=(const Sum& other) {
    count += other.count;
    sum += other.sum;
    return *this;
  }
};

// A DDSketch of a metric's positive values: how many fell into each bin.
struct SketchKey {
  uint64_t revision = 0;
  int32_t arm = 0;
  std::string metric;
  int32_t prompt_class = 0;
  int32_t group = 0;  // [0, kSketchGroups)
  auto operator<=>(const SketchKey&) const = default;
};
// The bin of +infinity: requests that never got there.
inline constexpr int32_t kInfiniteBin = std::numeric_limits<int32_t>::max();
using SketchBins = std::map<int32_t, int64_t>;

// A unit that took part, known by a keyed hash alone.
struct UnitKey {
  uint64_t revision = 0;
  uint64_t unit_key = 0;
  auto operator<=>(const UnitKey&) const = default;
};
struct UnitRecord {
  int32_t arm = 0;         // of its first exposure
  int64_t first_ms = 0;    // Unix milliseconds
  int64_t trigger_ms = 0;  // of its first triggered request; 0: none
  uint64_t arms_seen = 0;  // bit k: was in arm k
};

// A switchback's requests of one arm in one pair of windows, washout left out.
struct PairKey {
  uint64_t revision = 0;
  std::string metric;
  int64_t pair = 0;
  int32_t arm = 0;
  auto operator<=>(const PairKey&) const = default;
};

struct RevisionRecord {
  std::string experiment_id;
  std::string config_json;  // v1.Experiment, as `experiment`, and its resolved recipes, as JSON
  int64_t started_ms = 0;
  int64_t ended_ms = 0;               // 0: still in force
  double min_log_sample_ratio_p = 0;  // the least ln p of the sample ratio so far
};

inline constexpr int32_t kAllArms = -1;  // of a stop: the whole revision
struct StopKey {
  uint64_t revision = 0;
  int32_t arm = 0;  // or kAllArms
  auto operator<=>(const StopKey&) const = default;
};
struct StopRecord {
  int64_t at_ms = 0;
  std::string reason;
};

struct OutcomeKey {
  std::string request_id;
  std::string metric;
  auto operator<=>(const OutcomeKey&) const = default;
};
// Where an outcome belongs: what an outcome token carries.
struct OutcomeScope {
  uint64_t revision = 0;
  int32_t arm = 0;
  int32_t group = 0;
  uint64_t unit_key = 0;
  int64_t end_ms = 0;  // when the request ended
  bool triggered = false;
  int32_t prompt_class = 0;
  int32_t unit_age = 0;
};
struct OutcomeRecord {
  double value = 0;
  OutcomeScope scope;
  int64_t at_ms = 0;
};

// Additions since the last time: sums add, units unite (earliest first and trigger times, arms_seen
// joined).
struct Observations {
  std::map<SumKey, Sum> sums;
  std::map<SketchKey, SketchBins> sketches;
  std::map<UnitKey, UnitRecord> units;
  std::map<PairKey, Sum> pairs;
  int64_t dropped = 0;  // observations that were lost, by whatever reason

  bool empty() const {
    return sums.empty() && sketches.empty() && units.empty() && pairs.empty() && dropped == 0;
  }
};

// Everything that one file holds, or several merged.
struct ExperimentData {
  Observations observations;
  std::map<uint64_t, RevisionRecord> revisions;
  std::map<StopKey, StopRecord> stops;
  std::map<OutcomeKey, OutcomeRecord> outcomes;
  std::vector<std::string> instance_ids;
  std::vector<std::string> warnings;  // what merging found: conflicts, differing stops
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_EXPERIMENTS_EXPERIMENT_DATA_H_
