// The engine's thread: takes what was submitted, steps the scheduler, and publishes a snapshot of
// its load.

#include "engine/engine.h"

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "engine/schedule/device_lost.h"
#include "engine/schedule/scheduler.h"

namespace swaa {
namespace {

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
        scheduler_(scheduler_options_, device->info(), tokenizer) {
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
      if (draining_ || stopping_) {
        return absl::UnavailableError("the server is shutting down; send the request elsewhere");
      }
      const bool shadow = request.request_class == RequestClass::kShadow;
      if (!shadow && waiting_ >= options_.max_queued_requests) {
        return absl::ResourceExhaustedError(
            absl::StrCat("the queue holds its most, ", options_.max_queued_requests,
                         " requests; try again later or raise --max-queued-requests"));
      }
      if (!live_.try_emplace(request.id, request.request_class).second) {
        return absl::AlreadyExistsError(absl::StrCat(
            "request_id: '", request.id, "' belongs to a live request; choose another"));
      }
      if (shadow) {
        ++live_shadows_;
      } else {
        ++waiting_;
      }
      inbox_.push_back([this, moved = std::make_shared<GenerationRequest>(std::move(request)),
                        sink = std::move(sink), max_output = *max_output] {
        scheduler_.Add(std::move(*moved), sink, max_output, SteadyClock::now());
      });
    }
    wake_.notify_all();
    return absl::OkStatus();
  }

  void Cancel(const std::string& id, const GenerationSink* sink) override {
    Post([this, id, sink] {
      scheduler_.Cancel(id, sink, absl::CancelledError("the client cancelled"));
    });
  }

  bool Abort(const std::string& id) override {
    {
      std::lock_guard lock(mutex_);
      const auto found = live_.find(id);
      if (found == live_.end() || found->second == RequestClass::kShadow) return false;
    }
    Post([this, id] { scheduler_.Abort(id); });
    return true;
  }

  int32_t AbortAll() override {
    std::vector<std::string> ids;
    int32_t shadows = 0;
    {
      std::lock_guard lock(mutex_);
      for (const auto& [id, request_class] : live_) ids.push_back(id);
      shadows = live_shadows_;
    }
    Post([this, ids] {
      for (const std::string& id : ids) scheduler_.Abort(id);
    });
    return static_cast<int32_t>(ids.size()) - shadows;
  }

  void StartDrain() override {
    {
      std::lock_guard lock(mutex_);
      draining_ = true;
    }
    Post([this] {
      const absl::Status draining =
          absl::UnavailableError("the server is shutting down; send the request elsewhere");
      scheduler_.DropShadows(draining);
      scheduler_.RefuseQueued(draining);
    });
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
  // std::function wants to be copied: what moves only goes in by shared pointer.
  using Work = std::function<void()>;

  // Hands work to the engine thread, which does it between two steps, in order.
  void Post(std::function<void()> work) {
    {
      std::lock_guard lock(mutex_);
      inbox_.push_back(std::move(work));
    }
    wake_.notify_all();
  }

  // While a step is computed the next ones are planned and submitted, as many as the device takes.
  void Run() {
    while (TakeInbox()) {
      scheduler_.ExpireDeadlines(SteadyClock::now());
      // Their clients know already and may come again: their places must be free by then.
      if (scheduler_.any_ended()) Publish();
      while (scheduler_.steps_in_flight() < device_->info().max_steps_in_flight) {
        std::optional<Step> step = scheduler_.NextStep(SteadyClock::now());
        if (!step.has_value()) break;
        device_->Submit(*std::move(step));
      }
      Publish();
      if (scheduler_.steps_in_flight() == 0) continue;
      scheduler_.LookAhead();
      Collect();
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

  // Does what was posted; waits for something while there is nothing to compute. False: stop.
  bool TakeInbox() {
    {
      std::unique_lock lock(mutex_);
      const auto busy = [&] { return !scheduler_.idle() || scheduler_.steps_in_flight() > 0; };
      wake_.wait(lock, [&] { return stopping_ || !inbox_.empty() || busy(); });
      if (stopping_ && inbox_.empty() && !busy()) return false;
    }
    DoPosted();
    return true;
  }

  void DoPosted() {
    std::vector<Work> work;
    {
      std::lock_guard lock(mutex_);
      work.swap(inbox_);
    }
    for (Work& one : work) one();
  }

  // A request is about to end: its id and its place in the queue are free before its client knows.
  void Leave(const std::string& id, bool runs) {
    std::lock_guard lock(mutex_);
    const auto found = live_.find(id);
    SWAA_CHECK(found != live_.end()) << "request " << id << " is not live";
    if (found->second == RequestClass::kShadow) {
      --live_shadows_;
    } else if (!runs) {
      --waiting_;
    }
    live_.erase(found);
    ++unpublished_;
  }

  void Publish() {
    LoadSnapshot load = scheduler_.Snapshot();
    const std::vector<std::string> ended = scheduler_.TakeEnded();
    std::lock_guard lock(mutex_);
    unpublished_ -= ended.size();
    waiting_ = static_cast<int32_t>(live_.size()) - live_shadows_ - load.totals.running;
    load_ = std::move(load);
    if (live_.empty() && unpublished_ == 0) ended_.notify_all();
  }

  const EngineOptions options_;
  const SchedulerOptions scheduler_options_;
  Device* const device_;
  const EngineCallbacks callbacks_;
  Scheduler scheduler_;  // the engine thread's, once it runs

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable ended_;
  std::vector<Work> inbox_;
  std::unordered_map<std::string, RequestClass> live_;  // by id
  int32_t live_shadows_ = 0;
  size_t unpublished_ = 0;  // ended and still in load_
  int32_t waiting_ = 0;     // live, serving and not running
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
