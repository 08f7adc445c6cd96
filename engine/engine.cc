// The engine's thread: takes what was submitted, steps the scheduler, and publishes a snapshot of
// its load.

#include "engine/engine.h"

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace swaa {
namespace {

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

class ThreadedEngine final : public Engine {
 public:
  ThreadedEngine(const EngineOptions& options, Device* device, const Tokenizer* tokenizer,
                 std::function<void(const StepRecord&)> on_step)
      : options_(options),
        scheduler_options_{.max_batch_tokens = options.max_batch_tokens,
                           .max_running_requests = options.max_running_requests,
                           .max_context_tokens = options.max_context_tokens,
                           .prefix_cache = options.prefix_cache},
        device_(device),
        on_step_(std::move(on_step)),
        scheduler_(scheduler_options_, device->info(), tokenizer) {
    SWAA_CHECK_GE(device->info().max_step_tokens, options.max_batch_tokens);
    load_ = scheduler_.Load();
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
    SWAA_CHECK(!request.id.empty() && !request.prompt.empty());
    absl::StatusOr<int32_t> max_output =
        MaxOutputTokens(request, scheduler_options_, device_->info());
    if (!max_output.ok()) return max_output.status();
    {
      std::lock_guard lock(mutex_);
      if (draining_ || stopping_) {
        return absl::UnavailableError("the server is shutting down; send the request elsewhere");
      }
      if (waiting_ >= options_.max_queued_requests) {
        return absl::ResourceExhaustedError(
            absl::StrCat("the queue holds its most, ", options_.max_queued_requests,
                         " requests; try again later or raise --max-queued-requests"));
      }
      if (!live_.insert(request.id).second) {
        return absl::AlreadyExistsError(absl::StrCat(
            "request_id: '", request.id, "' belongs to a live request; choose another"));
      }
      ++waiting_;
      inbox_.push_back([this, moved = std::make_shared<GenerationRequest>(std::move(request)),
                        sink = std::move(sink), max_output = *max_output] {
        scheduler_.Add(std::move(*moved), sink, max_output);
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
      if (!live_.contains(id)) return false;
    }
    Post([this, id] { scheduler_.Abort(id); });
    return true;
  }

  int32_t AbortAll() override {
    std::vector<std::string> ids;
    {
      std::lock_guard lock(mutex_);
      ids.assign(live_.begin(), live_.end());
    }
    Post([this, ids] {
      for (const std::string& id : ids) scheduler_.Abort(id);
    });
    return static_cast<int32_t>(ids.size());
  }

  void StartDrain() override {
    {
      std::lock_guard lock(mutex_);
      draining_ = true;
    }
    Post([this] {
      scheduler_.RefuseQueued(
          absl::UnavailableError("the server is shutting down; send the request elsewhere"));
    });
  }

  bool AwaitIdle(absl::Duration timeout) override {
    std::unique_lock lock(mutex_);
    return ended_.wait_for(lock, absl::ToChronoNanoseconds(timeout), [&] { return live_.empty(); });
  }

  EngineLoad Load() const override {
    std::lock_guard lock(mutex_);
    EngineLoad load = load_;
    load.queued = waiting_;  // those still in the inbox, too
    return load;
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

  void Run() {
    while (TakeInbox()) {
      const auto start = std::chrono::steady_clock::now();
      scheduler_.ExpireDeadlines(absl::Now());
      // Their clients know already and may come again: their places must be free by then.
      if (scheduler_.any_ended()) Publish();
      std::optional<Step> step = scheduler_.NextStep(absl::Now());
      if (!step.has_value()) {
        Publish();
        continue;
      }
      StepRecord record{.prefill_tokens = scheduler_.step_prefill_tokens(),
                        .decode_tokens = scheduler_.step_decode_tokens(),
                        .host_seconds = SecondsSince(start)};
      device_->Submit(*std::move(step));
      Publish();  // while the device computes
      StepResult result = device_->Collect();
      record.device_seconds = result.seconds;
      const auto commit_start = std::chrono::steady_clock::now();
      scheduler_.Commit(std::move(result), absl::Now());
      record.host_seconds += SecondsSince(commit_start);
      if (on_step_) on_step_(record);
      if (scheduler_.any_ended()) Publish();  // who sees an idle engine sees its last step counted
    }
  }

  // Does what was posted; waits for something while there is nothing to compute. False: stop.
  bool TakeInbox() {
    std::vector<Work> work;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return stopping_ || !inbox_.empty() || !scheduler_.idle(); });
      if (stopping_ && inbox_.empty() && scheduler_.idle()) return false;
      work.swap(inbox_);
    }
    for (Work& one : work) one();
    return true;
  }

  void Publish() {
    EngineLoad load = scheduler_.Load();
    const std::vector<std::string> ended = scheduler_.TakeEnded();
    std::lock_guard lock(mutex_);
    for (const std::string& id : ended) live_.erase(id);
    int32_t in_inbox = static_cast<int32_t>(live_.size()) - load.running - load.queued;
    waiting_ = load.queued + in_inbox;
    load_ = std::move(load);
    if (live_.empty()) ended_.notify_all();
  }

  const EngineOptions options_;
  const SchedulerOptions scheduler_options_;
  Device* const device_;
  const std::function<void(const StepRecord&)> on_step_;
  Scheduler scheduler_;  // the engine thread's, once it runs

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable ended_;
  std::vector<Work> inbox_;
  std::unordered_set<std::string> live_;  // ids
  int32_t waiting_ = 0;                   // live and not running
  EngineLoad load_;
  bool draining_ = false;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<Engine> Engine::Create(const EngineOptions& options, Device* device,
                                       const Tokenizer* tokenizer,
                                       std::function<void(const StepRecord&)> on_step) {
  return std::make_unique<ThreadedEngine>(options, device, tokenizer, std::move(on_step));
}

}  // namespace swaa
