// What Prometheus sees of experiments and shadows.

#ifndef SWAA_SERVER_EXPERIMENTS_EXPERIMENT_METRICS_H_
#define SWAA_SERVER_EXPERIMENTS_EXPERIMENT_METRICS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <prometheus/collectable.h>

#include "absl/base/thread_annotations.h"

namespace swaa::server {

// Series of experiments that are no longer configured go with them. Thread-safe.
class ExperimentMetrics : public prometheus::Collectable {
 public:
  using ExperimentArm = std::pair<std::string, std::string>;

  // `dropped` says how many observations were lost; called from the exposer's threads.
  explicit ExperimentMetrics(std::function<int64_t()> dropped) : dropped_(std::move(dropped)) {}

  // The arms that there are, and those of them that are stopped. From then on no others are kept.
  void SetArms(const std::set<ExperimentArm>& arms, const std::set<ExperimentArm>& stopped);

  void CountAssignment(const std::string& experiment, const std::string& arm);
  void CountUnassigned(const std::string& reason);
  void CountOutcomes(const std::string& experiment, const std::string& arm, int64_t count);
  void CountGuardrailStop(const std::string& experiment, const std::string& arm);

  // A shadow comparison was made, of an answer of so many tokens; or a request was not compared, by
  // prompt class, for a reason.
  void CountShadow(const std::string& recipe, int64_t tokens, int64_t equal_argmax,
                   double logprob_difference);
  void CountShadowDropped(const std::string& prompt_len, const std::string& reason);

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  struct Arm {
    int64_t assignments = 0;
    int64_t outcomes = 0;
    int64_t guardrail_stops = 0;
    bool stopped = false;
  };
  struct ShadowCounts {
    int64_t requests = 0;
    int64_t tokens = 0;
    int64_t equal_argmax = 0;
    double logprob_difference = 0;
  };

  const std::function<int64_t()> dropped_;
  mutable std::mutex mutex_;
  std::map<ExperimentArm, Arm> arms_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, int64_t> unassigned_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, ShadowCounts> shadows_ ABSL_GUARDED_BY(mutex_);  // by recipe
  std::map<std::pair<std::string, std::string>, int64_t> shadows_dropped_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_EXPERIMENTS_EXPERIMENT_METRICS_H_
