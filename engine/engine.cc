// The engine's thread: takes what was submitted, steps the scheduler, and publishes a snapshot of
// its load.

#include "engine/engine.h"

#include <condition_variable>
#include <mutex>
#include <new>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "engine/schedule/device_lost.h"
#include "engine/schedule/out_of_memory.h"
#include "engine/schedule/scheduler.h"

namespace swaa {
namespace {

// A request from Submit to its end, as all threads know it.
struct LiveRequest {
  std::string id;
  std::shared_ptr<GenerationSink> sink;
  RequestClass request_class = RequestClass::kServing;
  // What it was asked for and not yet told the scheduler. Such requests form a list, as whoever
  // asks must not need memory.
  bool cancel = false;
  bool abort = false;
  std::shared_ptr<LiveRequest> next_asked;
};

struct Submission {
  std::shared_ptr<LiveRequest> live;
  GenerationRequest request;
  int32_t max_output = 0;
};

class ThreadedEngine final : public Engine {
 public:
  ThreadedEngine(const EngineOptions& options, Device* device, const Tokenizer* tokenizer,
                 EngineCallbacks callbacks)
      : options_(options),
        scheduler_options_{.max_batch_tokens = options.max_batch_tokens,
                           .max_running_requests = options.max_running_requests,
                           .max_context_tokens = options.max_context_tokens,
                           .prefix_cache = options.prefix_cache,
                           .priority_aging = options.priority_aging},
        device_(device),
        callbacks_(std::move(callbacks)),
        scheduler_(scheduler_options_, device->info(), tokenizer),
        cancelled_(absl::CancelledError("the client cancelled")),
        draining_status_(
            absl::UnavailableError("the server is shutting down; send the request elsewhere")),
        no_memory_to_add_(WithOutOfMemory(absl::ResourceExhaustedError(
            "the server has not the memory to take the request now; try again later"))),
        no_memory_to_step_(WithOutOfMemory(
            WithDeviceLost(absl::InternalError("memory ran out in the middle of a step")))),
        no_memory_any_more_(WithOutOfMemory(WithDeviceLost(absl::UnavailableError(
            "memory ran out in the middle of a step; send the request to another server")))) {
    SWAA_CHECK_GE(device->info().max_step_tokens, options.max_batch_tokens);
    scheduler_.set_on_ending([this](const std::string& id, bool runs) { Leave(id, runs); });
    scheduler_.set_block_observer(callbacks_.on_block);
    load_ = scheduler_.Snapshot();
    thread_ = std::thread([this] { Run(); });
  }

  ~ThreadedEngine() override {
    AbortAll();
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    thread_.join();
  }

  absl::Status Submit(GenerationRequest request, std::shared_ptr<GenerationSink> sink) override {
    SWAA_CHECK(!request.id.empty() && request.prompt != nullptr && !request.prompt->empty());
    absl::StatusOr<int32_t> max_output =
        MaxOutputTokens(request, scheduler_options_, device_->info());
    if (!max_output.ok()) return max_output.status();
    {
      std::lock_guard lock(mutex_);
      if (!lost_.ok()) return lost_;
      if (draining_ || stopping_) return draining_status_;
      const bool shadow = request.request_class == RequestClass::kShadow;
      if (!shadow && waiting_ >= options_.max_queued_requests) {
        return absl::ResourceExhaustedError(
            absl::StrCat("the queue holds its most, ", options_.max_queued_requests,
                         " requests; try again later or raise --max-queued-requests"));
      }
      if (live_.contains(request.id)) {
        return absl::AlreadyExistsError(absl::StrCat(
            "request_id: '", request.id, "' belongs to a live request; choose another"));
      }
      auto live = std::make_shared<LiveRequest>(LiveRequest{
          .id = request.id, .sink = std::move(sink), .request_class = request.request_class});
      // All that takes memory, before anything has changed.
      if (inbox_.size() == inbox_.capacity()) inbox_.reserve(2 * inbox_.size() + 1);
      live_.emplace(live->id, live);
      inbox_.push_back({std::move(live), std::move(request), *max_output});
      if (shadow) {
        ++live_shadows_;
      } else {
        ++waiting_;
      }
    }
    wake_.notify_all();
    return absl::OkStatus();
  }

  void Cancel(const std::string& id, const GenerationSink* sink) override {
    {
      std::lock_guard lock(mutex_);
      const auto found = live_.find(id);
      if (found == live_.end() || found->second->sink.get() != sink) return;
      Ask(found->second)->cancel = true;
    }
    wake_.notify_all();
  }

  bool Abort(const std::string& id) override {
    {
      std::lock_guard lock(mutex_);
      const auto found = live_.find(id);
      if (found == live_.end() || IsShadow(*found->second)) return false;
      Ask(found->second)->abort = true;
    }
    wake_.notify_all();
    return true;
  }

  int32_t AbortAll() override {
    int32_t serving = 0;
    {
      std::lock_guard lock(mutex_);
      for (const auto& [id, live] : live_) Ask(live)->abort = true;
      serving = static_cast<int32_t>(live_.size()) - live_shadows_;
    }
    wake_.notify_all();
    return serving;
  }

  void StartDrain() override {
    {
      std::lock_guard lock(mutex_);
      draining_ = drain_asked_ = true;
    }
    wake_.notify_all();
  }

  bool AwaitIdle(absl::Duration timeout) override {
    std::unique_lock lock(mutex_);
    return ended_.wait_for(lock, absl::ToChronoNanoseconds(timeout),
                           [&] { return live_.empty() && unpublished_ == 0; });
  }

  EngineLoad Load() const override {
    LoadSnapshot snapshot;
    {
      std::lock_guard lock(mutex_);
      snapshot = load_;
      snapshot.totals.queued = waiting_;  // those still in the inbox, too
    }
    return snapshot.ToLoad();
  }

 private:
  static bool IsShadow(const LiveRequest& live) {
    return live.request_class == RequestClass::kShadow;
  }

  // Puts a request on the list of those that were asked for something.
  LiveRequest* Ask(const std::shared_ptr<LiveRequest>& live) {
    if (!live->cancel && !live->abort) live->next_asked = std::exchange(asked_, live);
    return live.get();
  }

  void Run() {
    try {
      Serve();
    } catch (const std::bad_alloc&) {
      // The scheduler is in the middle of something: nobody touches it any more.
      RefuseAll();
    }
  }

  // While a step is computed the next ones are planned and submitted, as many as the device takes.
  void Serve() {
    while (AwaitWork()) {
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
    {
      std::lock_guard lock(mutex_);
      lost_ = WithDeviceLost(absl::UnavailableError(
          absl::StrCat(std::string(lost.message()), "; send the request to another server")));
    }
    // What came before the refusals began.
    DoPosted();
    scheduler_.FailAll(lost);
    Publish();
    if (callbacks_.on_device_lost) callbacks_.on_device_lost(lost);
  }

  // Ends every live request without the scheduler, and then goes on refusing.
  void RefuseAll() {
    {
      std::lock_guard lock(mutex_);
      lost_ = no_memory_any_more_;
      inbox_.clear();
    }
    while (const std::shared_ptr<LiveRequest> live = TakeAnyLive()) {
      live->sink->OnFailed(no_memory_to_step_, {});
    }
    {
      std::lock_guard lock(mutex_);
      unpublished_ = 0;
      waiting_ = 0;
      load_ = {};
      ended_.notify_all();
    }
    if (callbacks_.on_device_lost) callbacks_.on_device_lost(no_memory_to_step_);
  }

  std::shared_ptr<LiveRequest> TakeAnyLive() {
    std::lock_guard lock(mutex_);
    if (live_.empty()) return nullptr;
    std::shared_ptr<LiveRequest> live = live_.begin()->second;
    Erase(live_.begin());
    ++unpublished_;
    return live;
  }

  // Waits while there is nothing to do and nothing to compute. False: stop.
  bool AwaitWork() {
    std::unique_lock lock(mutex_);
    const auto posted = [&] { return !inbox_.empty() || asked_ != nullptr || drain_asked_; };
    const auto busy = [&] { return !scheduler_.idle() || scheduler_.steps_in_flight() > 0; };
    wake_.wait(lock, [&] { return stopping_ || posted() || busy(); });
    return !stopping_ || posted() || busy();
  }

  // Between two steps: what others want, in the order in which it may come.
  void DoPosted() {
    std::vector<Submission> submissions;
    std::shared_ptr<LiveRequest> asked;
    bool drain = false;
    {
      std::lock_guard lock(mutex_);
      submissions.swap(inbox_);
      asked = std::exchange(asked_, nullptr);
      drain = std::exchange(drain_asked_, false);
    }
    for (Submission& submission : submissions) Add(&submission);
    while (asked != nullptr) asked = EndAsAsked(*asked);
    if (!drain) return;
    scheduler_.DropShadows(draining_status_);
    scheduler_.RefuseQueued(draining_status_);
  }

  void Add(Submission* submission) {
    const GenerationStats stats{.prompt_tokens =
                                    static_cast<int32_t>(submission->request.prompt->size())};
    LiveRequest& live = *submission->live;
    try {
      scheduler_.Add(std::move(submission->request), live.sink, submission->max_output,
                     SteadyClock::now());
    } catch (const std::bad_alloc&) {
      Leave(live.id, /*runs=*/false);
      live.sink->OnFailed(no_memory_to_add_, stats);
      ++not_added_;
    }
  }

  // Returns the next that was asked for something.
  std::shared_ptr<LiveRequest> EndAsAsked(LiveRequest& live) {
    bool cancel = false;
    std::shared_ptr<LiveRequest> next;
    {
      std::lock_guard lock(mutex_);
      cancel = std::exchange(live.cancel, false);
      live.abort = false;
      next = std::exchange(live.next_asked, nullptr);
    }
    if (cancel) {
      scheduler_.Cancel(live.id, live.sink.get(), cancelled_);
    } else {
      scheduler_.Abort(live.id);
    }
    return next;
  }

  // A request is about to end: its id and its place in the queue are free before its client knows.
  void Leave(const std::string& id, bool runs) {
    std::lock_guard lock(mutex_);
    const auto found = live_.find(id);
    SWAA_CHECK(found != live_.end()) << "request " << id << " is not live";
    if (!runs && !IsShadow(*found->second)) --waiting_;
    Erase(found);
    ++unpublished_;
  }

  using LiveRequests = std::unordered_map<std::string, std::shared_ptr<LiveRequest>>;
  void Erase(LiveRequests::iterator live) {
    if (IsShadow(*live->second)) --live_shadows_;
    live_.erase(live);
  }

  void Publish() {
    LoadSnapshot load = Snapshot();
    const int64_t ended = scheduler_.TakeEnded() + std::exchange(not_added_, 0);
    std::lock_guard lock(mutex_);
    unpublished_ -= ended;
    waiting_ = static_cast<int32_t>(live_.size()) - live_shadows_ - load.totals.running;
    load_ = std::move(load);
    if (live_.empty() && unpublished_ == 0) ended_.notify_all();
  }

  // Without what the recipes hold, where memory is short: the next one has it.
  LoadSnapshot Snapshot() {
    try {
      return scheduler_.Snapshot();
    } catch (const std::bad_alloc&) {
      return {.totals = scheduler_.Totals()};
    }
  }

  const EngineOptions options_;
  const SchedulerOptions scheduler_options_;
  Device* const device_;
  const EngineCallbacks callbacks_;
  Scheduler scheduler_;    // the engine thread's, once it runs
  int64_t not_added_ = 0;  // its, too: ended, and unknown to the scheduler

  // Made before they are needed, when there may be no memory.
  const absl::Status cancelled_;
  const absl::Status draining_status_;
  const absl::Status no_memory_to_add_;
  const absl::Status no_memory_to_step_;
  const absl::Status no_memory_any_more_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable ended_;
  std::vector<Submission> inbox_;
  std::shared_ptr<LiveRequest> asked_;  // the first of a list
  bool drain_asked_ = false;
  LiveRequests live_;  // by id
  int32_t live_shadows_ = 0;
  int64_t unpublished_ = 0;  // ended and still in load_
  int32_t waiting_ = 0;      // live, serving and not running
  LoadSnapshot load_;
  absl::Status lost_;  // what new requests get once the device is lost
  bool draining_ = false;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<Engine> Engine::Create(const EngineOptions& options, Device* device,
                                       const Tokenizer* tokenizer, EngineCallbacks callbacks) {
  return std::make_unique<ThreadedEngine>(options, device, tokenizer, std::move(callbacks));
}

}  // namespace swaa
