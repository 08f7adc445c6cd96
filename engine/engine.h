// The continuous-batching engine: one thread that owns all request and page state.

#ifndef SWAA_ENGINE_ENGINE_H_
#define SWAA_ENGINE_ENGINE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/cache/block_change.h"
#include "engine/device/device.h"
#include "engine/generation.h"
#include "engine/schedule/device_lost.h"
#include "engine/schedule/engine_load.h"
#include "engine/schedule/never_fits.h"
#include "engine/schedule/out_of_memory.h"
#include "engine/schedule/step_time_model.h"
#include "engine/tokenizer/tokenizer.h"

namespace swaa {

struct EngineOptions {
  int32_t max_batch_tokens = 512;  // token budget of a step
  int32_t max_running_requests = 64;
  int32_t max_queued_requests = 1024;
  int32_t max_context_tokens = 0;  // of the model
  bool prefix_cache = true;        // reuse what earlier requests computed
  // Waiting for so long counts as much as one priority more (schedule/rank.h).
  SteadyClock::duration priority_aging = std::chrono::seconds(10);
};

// What one step was, for metrics.
struct StepRecord {
  int64_t prefill_tokens = 0;
  int64_t decode_tokens = 0;
  double device_seconds = 0;
  // Of device_seconds, what the step-time model attributes to requests; 0 where it knows nothing.
  double attributed_seconds = 0;
  bool shadow = false;  // computed for a shadow alone
  StepTimeModel::Quality model;
};

// Called on the engine thread; must not block, must not throw and must not call the engine.
struct EngineCallbacks {
  std::function<void(const StepRecord&)> on_step = {};
  // The device failed for good, or memory ran out in the middle of a step, with this status: every
  // request was ended with INTERNAL and new ones are refused. Called once; the process can only
  // end.
  std::function<void(const absl::Status&)> on_device_lost = {};
  // The prefix cache's blocks, as they come and go.
  BlockObserver on_block = {};
};

// Thread-safe. The destructor aborts what is left and joins the thread.
class Engine {
 public:
  // `tokenizer` gives token bytes for stop strings and the end tokens; it and the device outlive
  // the engine.
  static std::unique_ptr<Engine> Create(const EngineOptions& options, Device* device,
                                        const Tokenizer* tokenizer, EngineCallbacks callbacks = {});
  virtual ~Engine() = default;

  // Queues a request; its events go to `sink`. On an error the sink is never called:
  //   ALREADY_EXISTS      a live request has this id
  //   OUT_OF_RANGE        prompt beyond the context
  //   RESOURCE_EXHAUSTED  queue full, or the pool can never hold it (IsNeverFits tells)
  //   UNAVAILABLE         draining, or the engine computes no more (IsDeviceLost tells)
  // Where it throws bad_alloc, it has not taken the request.
  // A shadow takes no place in the queue: who submits shadows bounds them.
  virtual absl::Status Submit(GenerationRequest request, std::shared_ptr<GenerationSink> sink) = 0;

  // The client has gone: OnFailed(CANCELLED) at the next step boundary. Ignored unless the live
  // request of this id has this sink, so that a late cancel never hits a request that took the id
  // over.
  virtual void Cancel(const std::string& id, const GenerationSink* sink) = 0;
  // By an operator: after acceptance OnFinished(kCancelled), before OnFailed(CANCELLED). False:
  // unknown id.
  virtual bool Abort(const std::string& id) = 0;
  // Aborts all; how many.
  virtual int32_t AbortAll() = 0;

  // Takes no new request, refuses what is queued and was never accepted (UNAVAILABLE), finishes the
  // rest.
  virtual void StartDrain() = 0;
  // Waits until no request is live, or `timeout`; whether none is.
  virtual bool AwaitIdle(absl::Duration timeout) = 0;

  virtual EngineLoad Load() const = 0;
};

}  // namespace swaa

#endif  // SWAA_ENGINE_ENGINE_H_
