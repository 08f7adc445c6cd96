// The threads that do what gRPC's callback threads and the engine's thread must not.

#ifndef SWAA_SERVER_GENERATE_WORKER_POOL_H_
#define SWAA_SERVER_GENERATE_WORKER_POOL_H_

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"

namespace swaa::server {

// What waits to be admitted, and what is being admitted.
struct AdmissionLoad {
  int32_t waiting = 0;
  int32_t running = 0;
  int64_t bytes = 0;  // of both
};

// A fixed set of threads and two queues. Streaming tasks (short; a stream has at most one queued)
// run first. Admissions (parse, tokenise: may take long) are bounded in number and in bytes and
// never take the last thread; large ones (kLargeAdmissionBytes) never the last two, so that a long
// prompt delays neither tokens nor small prompts. A large one is overtaken by those that come
// within about the time that it takes itself. Thread-safe.
class WorkerPool {
 public:
  struct Options {
    int threads = 3;  // at least 3
    size_t max_queued_admissions = 1024;
    // Waiting and in work. One admission alone may exceed it.
    int64_t max_admission_bytes = int64_t{64} << 20;
    std::function<std::chrono::steady_clock::time_point()> now = &std::chrono::steady_clock::now;
  };
  static constexpr int64_t kLargeAdmissionBytes = int64_t{64} << 10;

  // Names a queued admission.
  using Ticket = std::pair<int64_t, uint64_t>;

  explicit WorkerPool(const Options& options);
  // Runs what is queued, then joins.
  ~WorkerPool();

  // What a stream wants of a worker. It throws nothing but std::bad_alloc, which is logged: whoever
  // needs to hear of it catches it.
  class StreamingTask {
   public:
    virtual ~StreamingTask() = default;
    virtual void RunOnWorker() = 0;

   private:
    friend class WorkerPool;
    std::shared_ptr<StreamingTask> next_;  // in the queue
  };

  // Queues a streaming task that is not queued. Never refuses, never blocks, takes no memory: it
  // may be a stream's last word.
  void PostStreaming(std::shared_ptr<StreamingTask> task);
  // The same of a function, which takes memory.
  void PostStreaming(std::function<void()> task);
  // Queues an admission of a message of this size. RESOURCE_EXHAUSTED says which bound is reached.
  absl::StatusOr<Ticket> PostAdmission(int64_t bytes, std::function<void()> task);
  // Takes an admission out of the queue; false: it has begun, or has ended.
  bool CancelAdmission(const Ticket& ticket);

  AdmissionLoad admission_load() const;

 private:
  struct Admission {
    int64_t bytes;
    std::function<void()> task;
  };

  void Work();
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The queue whose first admission may begin now; null: none may.
  const std::map<Ticket, Admission>* NextQueue() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  const std::chrono::steady_clock::time_point start_ = options_.now();
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::shared_ptr<StreamingTask> first_streaming_ ABSL_GUARDED_BY(mutex_);
  StreamingTask* last_streaming_ ABSL_GUARDED_BY(mutex_) = nullptr;
  // In the order in which they begin: by when they came plus what they take.
  std::map<Ticket, Admission> small_ ABSL_GUARDED_BY(mutex_);
  std::map<Ticket, Admission> large_ ABSL_GUARDED_BY(mutex_);
  uint64_t sequence_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  int admissions_running_ ABSL_GUARDED_BY(mutex_) = 0;
  int large_running_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_GENERATE_WORKER_POOL_H_
