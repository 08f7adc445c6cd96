// Experiments while the server runs: which arm a request gets, what is recorded of it, when an arm
// stops, and what came of it all.

#ifndef SWAA_SERVER_EXPERIMENTS_EXPERIMENTS_H_
#define SWAA_SERVER_EXPERIMENTS_EXPERIMENTS_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <unordered_map>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/experiments/experiment_key.h"
#include "server/experiments/experiment_metrics.h"
#include "server/experiments/experiment_set.h"
#include "server/experiments/experiment_tag.h"
#include "server/experiments/guardrails.h"
#include "server/experiments/request_recorder.h"
#include "server/experiments/storage/experiment_store.h"
#include "server/experiments/storage/exposure_log.h"
#include "server/observation/request_log.h"
#include "server/recipes/recipe_catalog.h"
#include "swaa/v1/experiment_service.pb.h"

namespace swaa::server {

// Thread-safe. No call that a request makes waits for storage.
class Experiments {
 public:
  struct Options {
    std::string path;          // of the SQLite file; empty: in memory
    std::string key_file;      // empty: a random key
    std::string exposure_log;  // empty: none
    absl::Duration outcome_window = absl::Hours(7 * 24);
    absl::Duration max_time_to_first_token_p95 = absl::InfiniteDuration();
    // How often guardrails and the sample ratio are looked at.
    absl::Duration check_interval = absl::Minutes(1);
    // Unix milliseconds; absent: the system's clock.
    std::function<int64_t()> now_ms;
  };

  // Opens the storage. The status names the setting at fault.
  static absl::StatusOr<std::unique_ptr<Experiments>> Create(const Options& options);
  ~Experiments();

  // The set that a configuration stands for, without adopting it. INVALID_ARGUMENT as
  // ExperimentSet.
  absl::StatusOr<ExperimentSet> Check(
      const google::protobuf::RepeatedPtrField<v1::Experiment>& experiments,
      const RecipeView& recipes) const;
  // From now on requests are assigned by it. Its revisions are stored first; if they cannot be, the
  // old set stays.
  absl::Status Adopt(ExperimentSet set);

  // What a unit's request gets; without a unit, or outside of every experiment, nothing. Counts the
  // exposure, so call it once for a request. `recipe` is set for units of stopped arms, too, which
  // have no tag.
  struct Choice {
    std::optional<ExperimentTag> tag;
    // As the experiment's revision has it, whatever is registered under the name meanwhile.
    std::optional<NamedRecipe> recipe;
  };
  Choice Choose(const std::string& unit, const std::string& request_id);
  // The request named its own recipe.
  void CountExplicitRecipe();

  // Whether the request's length made its recipe and the other arms' differ, and what lets any
  // replica take its outcomes.
  struct Finish {
    bool triggered = false;
    std::string outcome_token;
  };
  Finish FinishOf(const ExperimentTag& tag, const std::string& request_id,
                  const GenerationStats& stats);
  // How good the step-time model is now (StepTimeModel::Quality::error_ratio).
  void SetStepModelError(double error_ratio) {
    step_model_error_.store(error_ratio, std::memory_order_relaxed);
  }
  // Every request, once; `tag` is null without an experiment.
  void OnRequestEnd(const ExperimentTag* tag, const RequestRecord& record);
  void OnShadow(const ExperimentTag& tag, const GenerationStats& stats,
                const ShadowComparison& comparison);
  // An arm, other than control where the request's is control and else control, that a shadow of
  // the request is compared with; none if all others are stopped.
  std::optional<int32_t> ShadowArm(const ExperimentTag& tag, const std::string& request_id) const;

  // ExperimentService. Statuses carry reasons (server/generate/errors.h).
  v1::ListExperimentsResponse List() const;
  absl::StatusOr<v1::GetAssignmentResponse> GetAssignment(
      const v1::GetAssignmentRequest& request) const;
  absl::StatusOr<v1::GetReportResponse> GetReport(const v1::GetReportRequest& request);
  // `done` is called once, on the store's thread or here, and throws nothing; where this throws
  // bad_alloc, it is not called.
  void RecordOutcome(const v1::RecordOutcomeRequest& request,
                     std::function<void(absl::StatusOr<v1::RecordOutcomeResponse>)> done);
  absl::StatusOr<v1::ExperimentStatus> Start(const std::string& experiment_id);
  absl::StatusOr<v1::ExperimentStatus> Stop(const std::string& experiment_id,
                                            const std::string& arm);

  const std::shared_ptr<ExperimentMetrics>& metrics() const { return metrics_; }
  const std::string& instance_id() const { return store_->instance_id(); }

 private:
  // What a request of long ago is remembered by, where it comes back without a token.
  static constexpr size_t kMostRecentRequests = 65536;

  Experiments(const Options& options, ExperimentKey key);
  absl::Status LoadStored();
  int64_t NowMs() const { return options_.now_ms(); }
  std::shared_ptr<const ExperimentSet> CurrentSet() const;
  std::shared_ptr<const Stops> CurrentStops() const;
  void SetStops(std::shared_ptr<const Stops> stops);
  void UpdateMetrics();
  // Looks at guardrails and sample ratios until the end.
  void Watch();
  void CheckNow();
  absl::Status StopArm(const ActiveExperiment& experiment, int32_t arm, const std::string& reason)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(adopt_mutex_);
  // Tries again to store what could not be stored when it stopped.
  absl::Status StoreMissedStops(const ActiveExperiment& experiment)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(adopt_mutex_);
  absl::StatusOr<OutcomeScope> ScopeOfOutcome(const v1::RecordOutcomeRequest& request) const;
  absl::StatusOr<RequestOutcomes> CheckOutcomes(const v1::RecordOutcomeRequest& request) const;
  void CountOutcomes(const OutcomeScope& scope, const std::vector<MetricValue>& values,
                     int32_t recorded);
  v1::ExperimentStatus StatusNow(const ActiveExperiment& experiment) const;

  const Options options_;
  const ExperimentKey key_;
  std::shared_ptr<ExperimentMetrics> metrics_;
  std::unique_ptr<ExperimentStore> store_;
  std::unique_ptr<ExposureLog> exposure_log_;  // null: none
  RequestRecorder recorder_;
  std::atomic<double> step_model_error_{0};

  std::mutex adopt_mutex_;  // one Adopt, Start or Stop at a time; taken before mutex_
  std::set<StopKey> missed_stops_ ABSL_GUARDED_BY(adopt_mutex_);

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::shared_ptr<const ExperimentSet> set_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const Stops> stops_ ABSL_GUARDED_BY(mutex_);
  KnownRevisions known_ ABSL_GUARDED_BY(mutex_);
  // Of all revisions that were ever in force here: outcomes may come late.
  std::map<uint64_t, v1::Experiment> revisions_ ABSL_GUARDED_BY(mutex_);
  std::unordered_map<std::string, OutcomeScope> recent_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::string> recent_order_ ABSL_GUARDED_BY(mutex_);
  LatencyGuardrail latency_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread watcher_;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_EXPERIMENTS_EXPERIMENTS_H_
