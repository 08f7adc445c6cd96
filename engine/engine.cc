// The engine's thread: takes what was submitted, steps the scheduler, and publishes a snapshot of
// its load.

#include "engine/engine.h"

#include <new>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "engine/live_requests.h"
#include "engine/schedule/scheduler.h"

namespace swaa {
namespace {

class ThreadedEngine final : public Engine {
 public:
  ThreadedEngine(const EngineOptions& options, Device* device, const Tokenizer* tokenizer,
                 EngineCallbacks callbacks)
      : scheduler_options_{.max_batch_tokens = options.max_batch_tokens,
                           .max_running_requests = options.max_running_requests,
                           .max_context_tokens = options.max_context_tokens,
                           .prefix_cache = options.prefix_cache,
                           .priority_aging = options.priority_aging},
        device_(device),
        callbacks_(std::move(callbacks)),
        requests_(options.max_queued_requests),
        scheduler_(scheduler_options_, device->info(), tokenizer),
        cancelled_(absl::CancelledError("the client cancelled")),
        no_memory_to_add_(WithOutOfMemory(absl::ResourceExhaustedError(
            "the server has not the memory to take the request now; try again later"))),
        no_memory_to_step_(WithOutOfMemory(
            WithDeviceLost(absl::InternalError("memory ran out in the middle of a step")))),
        no_memory_any_more_(WithOutOfMemory(WithDeviceLost(absl::UnavailableError(
            "memory ran out in the middle of a step; send the request to another server")))) {
    SWAA_CHECK_GE(device->info().max_step_tokens, options.max_batch_tokens);
    scheduler_.set_on_ending(
        [this](const std::string& id, bool runs) { requests_.Leave(id, runs); });
    scheduler_.set_block_observer(callbacks_.on_block);
    Publish();
    thread_ = std::thread([this] { Run(); });
  }

  ~ThreadedEngine() override {
    requests_.AbortAll();
    requests_.Stop();
    thread_.join();
  }

  absl::Status Submit(GenerationRequest request, std::shared_ptr<GenerationSink> sink) override {
    SWAA_CHECK(!request.id.empty() && request.prompt != nullptr && !request.prompt->empty());
    absl::StatusOr<int32_t> max_output =
        MaxOutputTokens(request, scheduler_options_, device_->info());
    if (!max_output.ok()) return max_output.status();
    return requests_.Enter(std::move(request), std::move(sink), *max_output);
  }

  void Cancel(const std::string& id, const GenerationSink* sink) override {
    requests_.Cancel(id, sink);
  }
  bool Abort(const std::string& id) override { return requests_.Abort(id); }
  int32_t AbortAll() override { return requests_.AbortAll(); }
  void StartDrain() override { requests_.StartDrain(); }
  bool AwaitIdle(absl::Duration timeout) override { return requests_.AwaitIdle(timeout); }
  EngineLoad Load() const override { return requests_.Load().ToLoad(); }

 private:
  void Run() {
    try {
      Serve();
    } catch (const std::bad_alloc&) {
      EndAll();
    }
  }

  // While a step is computed the next ones are planned and submitted, as many as the device takes.
  void Serve() {
    const auto busy = [this] { return !scheduler_.idle() || scheduler_.steps_in_flight() > 0; };
    while (requests_.Await(busy)) {
      DoPosted();
      scheduler_.ExpireDeadlines(SteadyClock::now());
      // Their clients know already and may come again: their places must be free by then.
      if (scheduler_.any_ended() || not_added_ > 0) Publish();
      while (scheduler_.steps_in_flight() < device_->info().max_steps_in_flight) {
        std::optional<Step> step = scheduler_.NextStep(SteadyClock::now());
        if (!step.has_value()) break;
        device_->Submit(*std::move(step));
      }
      Publish();
      if (scheduler_.steps_in_flight() == 0) continue;
      LookAhead();
      Collect();
    }
  }

  void LookAhead() {
    try {
      scheduler_.LookAhead();
    } catch (const std::bad_alloc&) {  // what it saves is time
    }
  }

  void Collect() {
    StepResult result = device_->Collect();
    if (result.device_lost) return LoseDevice(result.status);
    const double seconds = result.seconds;
    const Scheduler::CommittedStep step = scheduler_.Commit(std::move(result), SteadyClock::now());
    if (callbacks_.on_step) {
      callbacks_.on_step({.prefill_tokens = step.work.prefill_tokens,
                          .decode_tokens = step.work.decode_tokens,
                          .device_seconds = seconds,
                          .attributed_seconds = step.attributed_seconds,
                          .shadow = step.shadow,
                          .model = scheduler_.model_quality()});
    }
    if (scheduler_.any_ended()) Publish();  // who sees an idle engine sees its last step counted
  }

  // No later step can succeed: nothing is submitted or collected any more.
  void LoseDevice(const absl::Status& status) {
    const absl::Status lost = WithDeviceLost(
        absl::InternalError(absl::StrCat("the device is lost: ", std::string(status.message()))));
    requests_.Refuse(WithDeviceLost(absl::UnavailableError(
        absl::StrCat(std::string(lost.message()), "; send the request to another server"))));
    // What came before the refusals began.
    DoPosted();
    scheduler_.FailAll(lost);
    Publish();
    if (callbacks_.on_device_lost) callbacks_.on_device_lost(lost);
  }

  // Ends every live request without the scheduler, which is in the middle of something.
  void EndAll() {
    requests_.Refuse(no_memory_any_more_);
    while (const std::shared_ptr<LiveRequest> live = requests_.LeaveAny()) {
      live->sink->OnFailed(no_memory_to_step_, {});
    }
    requests_.PublishNothing();
    if (callbacks_.on_device_lost) callbacks_.on_device_lost(no_memory_to_step_);
  }

  // Between two steps.
  void DoPosted() {
    LiveRequests::Posted posted = requests_.Take();
    for (LiveRequests::Submission& submission : posted.submissions) Add(&submission);
    while (posted.asked != nullptr) posted.asked = EndAsAsked(posted.asked.get());
    if (!posted.drain) return;
    scheduler_.DropShadows(requests_.draining());
    scheduler_.RefuseQueued(requests_.draining());
  }

  void Add(LiveRequests::Submission* submission) {
    const GenerationStats stats{.prompt_tokens =
                                    static_cast<int32_t>(submission->request.prompt->size())};
    const LiveRequest& live = *submission->live;
    try {
      scheduler_.Add(std::move(submission->request), live.sink, submission->max_output,
                     SteadyClock::now());
    } catch (const std::bad_alloc&) {
      requests_.Leave(live.id, /*runs=*/false);
      live.sink->OnFailed(no_memory_to_add_, stats);
      ++not_added_;
    }
  }

  // Returns the next that was asked for something.
  std::shared_ptr<LiveRequest> EndAsAsked(LiveRequest* live) {
    LiveRequests::Answer answer = requests_.TakeAsked(live);
    if (answer.cancel) {
      scheduler_.Cancel(live->id, live->sink.get(), cancelled_);
    } else {
      scheduler_.Abort(live->id);
    }
    return std::move(answer.next);
  }

  void Publish() {
    LoadSnapshot load = Snapshot();
    requests_.Publish(std::move(load), scheduler_.TakeEnded() + std::exchange(not_added_, 0));
  }

  // Without what the recipes hold, where memory is short: the next one has it.
  LoadSnapshot Snapshot() {
    try {
      return scheduler_.Snapshot();
    } catch (const std::bad_alloc&) {
      return {.totals = scheduler_.Totals()};
    }
  }

  const SchedulerOptions scheduler_options_;
  Device* const device_;
  const EngineCallbacks callbacks_;
  LiveRequests requests_;
  Scheduler scheduler_;    // the engine thread's, once it runs
  int64_t not_added_ = 0;  // its, too: ended, and unknown to the scheduler

  // Made before they are needed, when there may be no memory.
  const absl::Status cancelled_;
  const absl::Status no_memory_to_add_;
  const absl::Status no_memory_to_step_;
  const absl::Status no_memory_any_more_;

  std::thread thread_;
};

}  // namespace

std::unique_ptr<Engine> Engine::Create(const EngineOptions& options, Device* device,
                                       const Tokenizer* tokenizer, EngineCallbacks callbacks) {
  return std::make_unique<ThreadedEngine>(options, device, tokenizer, std::move(callbacks));
}

}  // namespace swaa
