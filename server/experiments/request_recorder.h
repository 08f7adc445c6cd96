// What is recorded of requests in experiments, and what of it this server has in memory.

#ifndef SWAA_SERVER_EXPERIMENTS_REQUEST_RECORDER_H_
#define SWAA_SERVER_EXPERIMENTS_REQUEST_RECORDER_H_

#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "engine/generation.h"
#include "server/experiments/experiment_data.h"
#include "server/experiments/experiment_tag.h"
#include "server/observation/prompt_class.h"
#include "server/observation/request_log.h"
#include "swaa/v1/experiment.pb.h"

namespace swaa::server {

// Of two recipes on one finished request, each computed alone (metric_names.h says what of).
struct ShadowComparison {
  int32_t other_arm = 0;
  double log_time_ratio = 0;
  double log_kv_bytes_ratio = 0;
  int64_t tokens = 0;
  int64_t equal_argmax = 0;
  double logprob_difference = 0;  // summed over tokens
  int64_t first_divergence = 0;
};

// Thread-safe; no call waits for anything but other calls. What it returns is to be stored.
class RequestRecorder {
 public:
  // Takes what a store has of revisions that are about to be in force, in place of what it had of
  // them. Revisions that were never loaded, or that Keep forgot, are not kept in memory.
  void Load(const std::set<uint64_t>& revisions, const ExperimentData& data);
  // Forgets all revisions but these.
  void Keep(const std::set<uint64_t>& revisions);

  // The arm was chosen.
  Observations Expose(const ExperimentTag& tag, int64_t now_ms);
  // Where the request's outcomes belong. From its unit's first triggered request on, all of it is
  // triggered.
  OutcomeScope ScopeOf(const ExperimentTag& tag, const GenerationStats& stats, int64_t now_ms);
  // The request ended, well or not.
  // `step_model_error`: how good the model is that its device time is attributed by.
  Observations End(const ExperimentTag& tag, const RequestRecord& record, double step_model_error,
                   int64_t now_ms);
  // It was computed again under two recipes.
  Observations Shadow(const ExperimentTag& tag, const OutcomeScope& scope,
                      const ShadowComparison& comparison);
  // An outcome was stored.
  void CountOutcome(const OutcomeScope& scope, const v1::ExperimentMetric& metric, double value);

  // All sums of a revision, outcomes among them.
  std::map<SumKey, Sum> Totals(uint64_t revision) const;
  // Units by the arm of their first exposure.
  std::vector<int64_t> UnitCounts(uint64_t revision, int32_t num_arms) const;

 private:
  struct Unit {
    int32_t arm = 0;
    int64_t first_ms = 0;  // Unix milliseconds, as far as this server knows
    uint64_t arms_seen = 0;
    bool triggered = false;
  };
  struct Revision {
    std::unordered_map<uint64_t, Unit> units;
    std::map<int32_t, int64_t> units_by_arm;
    std::map<SumKey, Sum> totals;
  };

  void Note(const Observations& observations) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  const Unit* FindUnit(uint64_t revision, uint64_t unit_key) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool HasTriggered(uint64_t revision, uint64_t unit_key) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable std::mutex mutex_;
  std::map<uint64_t, Revision> revisions_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_EXPERIMENTS_REQUEST_RECORDER_H_
