// Everything the engine knows, without its thread: requests, pages, slots; what the next step is
// and what its result means.

#ifndef SWAA_ENGINE_SCHEDULE_SCHEDULER_H_
#define SWAA_ENGINE_SCHEDULE_SCHEDULER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/cache/page_pool.h"
#include "engine/cache/prefix_cache.h"
#include "engine/device/device.h"
#include "engine/generation.h"
#include "engine/schedule/output_limit.h"
#include "engine/schedule/plan.h"
#include "engine/schedule/request_state.h"
#include "engine/tokenizer/tokenizer.h"

namespace swaa {

// Requests and memory of one recipe label.
struct RecipeLoad {
  int32_t running = 0;
  int32_t queued = 0;
  int64_t kv_bytes = 0;
  int64_t full_attention_kv_bytes = 0;  // what its running requests would hold under full attention
};

struct EngineLoad {
  int32_t running = 0;
  int32_t queued = 0;
  int64_t used_pages = 0;
  int64_t total_pages = 0;  // without the zero page
  int64_t evictable_pages = 0;
  int64_t preemptions = 0;    // since the start
  int64_t cached_blocks = 0;  // of 64 tokens, that the prefix cache knows
  std::map<std::string, RecipeLoad> recipes;
};

// The engine thread's. Every call but NextStep and Commit needs that no step is in flight: pages
// that a submitted step reads are never released.
class Scheduler {
 public:
  Scheduler(const SchedulerOptions& options, const DeviceInfo& device, const Tokenizer* tokenizer);

  // Queues a request; `max_output` as MaxOutputTokens gave it.
  void Add(GenerationRequest request, std::shared_ptr<GenerationSink> sink, int32_t max_output);

  // Ends the request that has both this id and this sink with `status`; ignored if none has.
  void Cancel(const std::string& id, const GenerationSink* sink, const absl::Status& status);
  // By an operator: after acceptance it finishes with kCancelled, before it fails with CANCELLED.
  void Abort(const std::string& id);
  // Refuses what was never accepted.
  void RefuseQueued(const absl::Status& status);
  void ExpireDeadlines(absl::Time now);

  // The next step, or none if nothing is to be computed. Must be committed before the next call.
  std::optional<Step> NextStep(absl::Time now);
  // Takes a step's result: tells the clients, releases pages. A failed step fails its requests.
  void Commit(StepResult result, absl::Time now);

  bool idle() const { return running_.empty() && queued_.empty(); }
  EngineLoad Load() const;
  // Ids of the requests that ended since the last call.
  std::vector<std::string> TakeEnded();
  bool any_ended() const { return !ended_.empty(); }
  // Rows of the step in flight by phase of their positions.
  int32_t step_prefill_tokens() const { return step_prefill_tokens_; }
  int32_t step_decode_tokens() const { return step_decode_tokens_; }

 private:
  using Request = std::unique_ptr<RequestState>;
  struct InFlight {
    RequestState* request;
    int32_t first;
    int32_t count;
    size_t logits;  // how many of the step's logits rows are its
  };

  RequestView ViewOf(const RequestState& request) const;
  // Looks the request up in the prefix cache; its hit is fresh until pages are taken.
  RequestView ViewOfQueued(RequestState* request) const;
  StepPlan Plan();
  void Enqueue(Request request);
  void Preempt(const std::vector<size_t>& running);
  void Admit(RequestState* request, absl::Time now);
  void RegisterBlocks(RequestState* request);
  void AddRows(RequestState* request, const PlannedRows& rows, Step* step);
  void Tell(RequestState* request, RequestProgress progress, absl::Time now);
  void Finish(RequestState* request, FinishReason reason, StopCause stop, absl::Time now);
  void Fail(RequestState* request, const absl::Status& status, absl::Time now);
  void Remove(RequestState* request);
  void Vacate(RequestState* request);
  std::vector<RequestState*> All() const;

  const SchedulerOptions options_;
  const DeviceInfo device_;
  const Tokenizer* const tokenizer_;
  PagePool pool_;
  PrefixCache cache_;
  std::vector<int32_t> free_slots_;
  std::vector<Request> running_;
  std::vector<Request> queued_;           // by rank
  std::vector<PageTableUpdate> updates_;  // for the next step
  std::vector<InFlight> in_flight_;
  bool step_in_flight_ = false;
  int32_t step_prefill_tokens_ = 0;
  int32_t step_decode_tokens_ = 0;
  uint64_t next_arrival_ = 0;
  uint64_t next_step_ = 1;
  int64_t preemptions_ = 0;
  std::vector<std::string> ended_;
};

}  // namespace swaa

#endif  // SWAA_ENGINE_SCHEDULE_SCHEDULER_H_
