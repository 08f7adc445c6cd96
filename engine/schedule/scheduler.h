// Everything the engine knows, without its thread: requests, pages, slots; what the next step is
// and what its result means.

#ifndef SWAA_ENGINE_SCHEDULE_SCHEDULER_H_
#define SWAA_ENGINE_SCHEDULE_SCHEDULER_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "engine/cache/page_pool.h"
#include "engine/cache/prefix_cache.h"
#include "engine/cache/retired_pages.h"
#include "engine/device/device.h"
#include "engine/generation.h"
#include "engine/schedule/engine_load.h"
#include "engine/schedule/output_limit.h"
#include "engine/schedule/plan.h"
#include "engine/schedule/request_state.h"
#include "engine/schedule/span_classes.h"
#include "engine/schedule/step_time_model.h"
#include "engine/tokenizer/tokenizer.h"

namespace swaa {

// The engine thread's. Steps are planned ahead of results: up to the device's max_steps_in_flight
// may be submitted and not committed, and they are committed in order. A request may end at any
// time; its pages and its slot go back when no submitted step reads them.
class Scheduler {
 public:
  Scheduler(const SchedulerOptions& options, const DeviceInfo& device, const Tokenizer* tokenizer);

  // Queues a request that has arrived now; `max_output` as MaxOutputTokens gave it. `now` is never
  // less than that of an earlier call. Where it throws bad_alloc, it has not taken the request.
  void Add(GenerationRequest request, std::shared_ptr<GenerationSink> sink, int32_t max_output,
           SteadyTime now);

  // What ends requests takes no memory, and so never fails.

  // Ends the request that has both this id and this sink with `status`; ignored if none has.
  void Cancel(const std::string& id, const GenerationSink* sink, const absl::Status& status);
  // By an operator: after acceptance it finishes with kCancelled, before it fails with CANCELLED.
  void Abort(const std::string& id);
  // Refuses what was never accepted.
  void RefuseQueued(const absl::Status& status);
  // Fails the shadows.
  void DropShadows(const absl::Status& status);
  void ExpireDeadlines(SteadyTime now);
  // The device is lost: ends every request with `status` and forgets the submitted steps.
  void FailAll(const absl::Status& status);

  // The next step, to be submitted at once; none if nothing is to be computed before another step
  // is committed. CHECKs that one more may be in flight. Where memory is short, it waits for the
  // steps in flight; without any, the lowest-ranked request fails to make room.
  std::optional<Step> NextStep(SteadyTime now);
  // While a step is computed: compares more tokens of those that wait with the prefix cache, so
  // that the next steps need not. Takes a millisecond at most.
  void LookAhead();
  // Takes the oldest submitted step's result: tells the clients, releases pages. A failed step
  // fails its requests; a lack of memory fails the request that it hits. Returns what the step was.
  struct CommittedStep {
    StepWork work;
    bool shadow = false;            // computed for a shadow alone
    double attributed_seconds = 0;  // to requests, by the step-time model; 0 where it knows nothing
  };
  CommittedStep Commit(StepResult result, SteadyTime now);

  int32_t steps_in_flight() const { return static_cast<int32_t>(submitted_.size()); }
  // No request is live; steps may still be in flight.
  bool idle() const { return running_.empty() && queued_.empty(); }
  LoadSnapshot Snapshot() const;
  EngineLoad Totals() const;  // of the snapshot; takes no memory
  EngineLoad Load() const { return Snapshot().ToLoad(); }
  // Called before a request's client is told of its end, which may come again at once.
  void set_on_ending(std::function<void(const std::string& id, bool runs)> on_ending) {
    on_ending_ = std::move(on_ending);
  }
  // Told of the prefix cache's blocks.
  void set_block_observer(BlockObserver observer) { cache_.SetObserver(std::move(observer)); }
  // How many requests ended since the last call.
  int64_t TakeEnded() { return std::exchange(ended_, 0); }
  bool any_ended() const { return ended_ > 0; }
  StepTimeModel::Quality model_quality() const { return step_time_model_.quality(); }

  const PagePool& pool() const { return pool_; }

 private:
  using Request = std::shared_ptr<RequestState>;
  // Rows of one request in a submitted step.
  struct SubmittedRows {
    Request request;
    uint32_t life;  // the request's when they were submitted
    int32_t first;
    int32_t count;
    RowUses uses;
    StepWork work;            // for the first time
    StepWork recomputed;      // again, after a preemption
    StepWork full_attention;  // `work`, had every layer seen everything
    // The request's, before.
    uint64_t last_step;
    int32_t most_submitted;
  };
  struct SubmittedStep {
    uint64_t id = 0;
    std::vector<SubmittedRows> rows;

    StepWork Work() const;
  };
  class Queue;

  // scheduler.cc: requests from their arrival to their end.
  void ReserveQueue();
  void Enqueue(Request request);
  Request FindById(const std::string& id) const;
  void FailWhere(absl::FunctionRef<bool(const RequestState&)> ends, const absl::Status& status,
                 SteadyTime now);
  bool UsesPrefixCache(const RequestState& request) const;
  // No serving request is here, and no step is in flight.
  bool ShadowsMayRun() const;
  void Finish(const Request& request, FinishReason reason, StopCause stop, SteadyTime now);
  void Fail(const Request& request, const absl::Status& status, SteadyTime now);
  void Remove(const Request& request);
  void Vacate(RequestState* request);
  void UpdateLoad(RequestState* request);

  // next_step.cc: what to compute next.
  RequestView ViewOf(RequestState* request) const;
  RequestView ViewOfQueued(RequestState* request);
  bool WalkCache(RequestState* request, int64_t* blocks);
  StepPlan Plan();
  std::optional<StepPlan> PlanRows();
  std::optional<Step> TryCarryOut(const StepPlan& plan, SteadyTime now);
  void TakeBack(const std::vector<Request>& admitted);
  void Requeue(Request request);
  bool MakeRoom(SteadyTime now);
  void CarryOut(const StepPlan& plan, std::vector<Request>* admitted, Step* step, SteadyTime now);
  void Preempt(const std::vector<size_t>& running);
  bool PreemptShadowInTheWay();
  void Admit(const Request& request, Step* step, SteadyTime now);
  void AddRows(const Request& request, const PlannedRows& rows, Step* step);

  // commit.cc: what a result means.
  void Settle(uint64_t step);
  double BookTime(const SubmittedStep& step, double seconds);
  void FailStep(const SubmittedStep& step, const absl::Status& status, SteadyTime now);
  void CommitRows(SubmittedStep step, std::vector<ScoredToken> tokens, SteadyTime now);
  void Register(RequestState* request);
  void ReleaseInvisible(const SubmittedStep& step);
  void Tell(const Request& request, RequestProgress progress, SteadyTime now);

  const SchedulerOptions options_;
  const DeviceInfo device_;
  const Tokenizer* const tokenizer_;
  PagePool pool_;
  PrefixCache cache_;
  RetiredPages retired_;
  SpanClasses classes_;
  RecipeLoads loads_;
  RecipeLoads adapter_loads_;
  RecipeLoad shadow_load_;
  StepTimeModel step_time_model_;
  std::vector<int32_t> free_slots_;
  std::vector<std::pair<uint64_t, int32_t>> settling_slots_;  // last step, slot
  std::vector<Request> running_;                              // by rank
  std::vector<Request> queued_;                               // by rank
  SteadyTime earliest_deadline_ = SteadyTime::max();          // no live request's is before it
  std::vector<PageTableUpdate> updates_;                      // for the next step
  std::vector<SpanClasses::Column> columns_;                  // of the step that is being made
  int64_t lookup_blocks_ = 0;                                 // that this step may still compare
  std::deque<SubmittedStep> submitted_;                       // oldest first
  uint64_t settled_ = 0;                                      // the last committed step
  uint64_t next_order_ = 0;
  uint64_t next_step_ = 1;
  int64_t preemptions_ = 0;
  int64_t ended_ = 0;
  // Made before they are needed, when there may be no memory.
  const absl::Status aborted_;
  const absl::Status deadline_passed_;
  const absl::Status cannot_be_admitted_;
  const absl::Status out_of_memory_;
  std::function<void(const std::string&, bool)> on_ending_ = [](const std::string&, bool) {};
};

}  // namespace swaa

#endif  // SWAA_ENGINE_SCHEDULE_SCHEDULER_H_
