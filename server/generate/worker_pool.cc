// The threads that do what gRPC's callback threads and the engine's thread must not.

#include "server/generate/worker_pool.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "server/generate/errors.h"
#include "server/observation/memory_guard.h"

namespace swaa::server {
namespace {

// What a byte of a message takes to be parsed and tokenised, as an order of magnitude: 15 MiB of
// spaces took 5.4 s.
constexpr int64_t kNanosecondsPerByte = 350;

class FunctionTask final : public WorkerPool::StreamingTask {
 public:
  explicit FunctionTask(std::function<void()> function) : function_(std::move(function)) {}
  void RunOnWorker() override { function_(); }

 private:
  const std::function<void()> function_;
};

constexpr char kWork[] = "what a worker did";

}  // namespace

WorkerPool::WorkerPool(const Options& options) : options_(options) {
  SWAA_CHECK_GE(options.threads, 3);
  threads_.reserve(options.threads);
  for (int i = 0; i < options.threads; ++i) threads_.emplace_back([this] { Work(); });
}

WorkerPool::~WorkerPool() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void WorkerPool::PostStreaming(std::shared_ptr<StreamingTask> task) {
  {
    std::lock_guard lock(mutex_);
    StreamingTask* const added = task.get();
    (first_streaming_ == nullptr ? first_streaming_ : last_streaming_->next_) = std::move(task);
    last_streaming_ = added;
  }
  changed_.notify_one();
}

void WorkerPool::PostStreaming(std::function<void()> task) {
  PostStreaming(std::make_shared<FunctionTask>(std::move(task)));
}

absl::StatusOr<WorkerPool::Ticket> WorkerPool::PostAdmission(int64_t bytes,
                                                             std::function<void()> task) {
  const auto now = std::chrono::duration_cast<std::chrono::nanoseconds>(options_.now() - start_);
  Ticket ticket;
  {
    std::lock_guard lock(mutex_);
    if (small_.size() + large_.size() >= options_.max_queued_admissions) {
      return MakeError(absl::StatusCode::kResourceExhausted, "queue_full",
                       absl::StrCat("request: ", options_.max_queued_admissions,
                                    " requests wait to be read, which is the most; try again "
                                    "later"));
    }
    if (bytes_ > 0 && bytes_ + bytes > options_.max_admission_bytes) {
      return MakeError(
          absl::StatusCode::kResourceExhausted, "queue_full",
          absl::StrCat("request: its ", bytes, " bytes and the ", bytes_,
                       " of requests that wait to be read exceed the most, ",
                       options_.max_admission_bytes, "; try again later or send less text"));
    }
    ticket = {now.count() + bytes * kNanosecondsPerByte, ++sequence_};
    auto& queue = bytes >= kLargeAdmissionBytes ? large_ : small_;
    queue.emplace(ticket, Admission{bytes, std::move(task)});
    bytes_ += bytes;
  }
  // Any: a thread that may not take a large one would go back to sleep and leave it.
  changed_.notify_all();
  return ticket;
}

bool WorkerPool::CancelAdmission(const Ticket& ticket) {
  Admission removed;  // destroyed without the lock: it may hold the last reference to a stream
  std::lock_guard lock(mutex_);
  for (auto* queue : {&small_, &large_}) {
    auto found = queue->find(ticket);
    if (found == queue->end()) continue;
    bytes_ -= found->second.bytes;
    removed = std::move(found->second);
    queue->erase(found);
    return true;
  }
  return false;
}

AdmissionLoad WorkerPool::admission_load() const {
  std::lock_guard lock(mutex_);
  return {.waiting = static_cast<int32_t>(small_.size() + large_.size()),
          .running = admissions_running_,
          .bytes = bytes_};
}

const std::map<WorkerPool::Ticket, WorkerPool::Admission>* WorkerPool::NextQueue() const {
  if (admissions_running_ >= options_.threads - 1) return nullptr;
  const bool may_take_large = !large_.empty() && large_running_ < options_.threads - 2;
  if (small_.empty()) return may_take_large ? &large_ : nullptr;
  return may_take_large && large_.begin()->first < small_.begin()->first ? &large_ : &small_;
}

bool WorkerPool::HasWork() const {
  return first_streaming_ != nullptr || stopping_ || NextQueue() != nullptr;
}

void WorkerPool::Work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return HasWork(); });
    if (first_streaming_ != nullptr) {
      std::shared_ptr<StreamingTask> task = std::move(first_streaming_);
      first_streaming_ = std::move(task->next_);
      lock.unlock();
      GuardMemory(kWork, [&] { task->RunOnWorker(); });
      task = nullptr;  // what it held goes before the lock is taken again
      lock.lock();
      continue;
    }
    const auto* queue = NextQueue();
    // Stopping; admissions that remain are for the threads that are at one now.
    if (queue == nullptr) return;
    const bool large = queue == &large_;
    auto first = (large ? large_ : small_).begin();
    Admission admission = std::move(first->second);
    (large ? large_ : small_).erase(first);
    ++admissions_running_;
    if (large) ++large_running_;
    lock.unlock();
    GuardMemory(kWork, admission.task);
    admission.task = nullptr;
    lock.lock();
    --admissions_running_;
    if (large) --large_running_;
    bytes_ -= admission.bytes;
    changed_.notify_all();
  }
}

}  // namespace swaa::server
