// The threads that do what gRPC's callback threads and the engine's thread must not.

#ifndef SWAA_SERVER_GENERATE_WORKER_POOL_H_
#define SWAA_SERVER_GENERATE_WORKER_POOL_H_

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"

namespace swaa::server {

// A fixed set of threads and two queues. Streaming tasks (short; a stream has at most one queued)
// run first. Admissions (parse, tokenise: may take long) are bounded and never take the last
// thread, so that a long prompt delays nobody's tokens. Thread-safe.
class WorkerPool {
 public:
  struct Options {
    int threads = 2;  // at least 2
    size_t max_queued_admissions = 1024;
  };

  explicit WorkerPool(const Options& options);
  // Runs what is queued, then joins.
  ~WorkerPool();

  // Queues a streaming task. Never refuses, never blocks.
  void PostStreaming(std::function<void()> task);
  // Queues an admission; false if its queue is full.
  bool TryPostAdmission(std::function<void()> task);

 private:
  void Work();
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool MayAdmit() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> streaming_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::function<void()>> admissions_ ABSL_GUARDED_BY(mutex_);
  int admissions_running_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_GENERATE_WORKER_POOL_H_
