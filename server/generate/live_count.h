// How many streams there still are.

#ifndef SWAA_SERVER_GENERATE_LIVE_COUNT_H_
#define SWAA_SERVER_GENERATE_LIVE_COUNT_H_

#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"

namespace swaa::server {

// Counts what must end before the server may go. Thread-safe.
class LiveCount {
 public:
  void Add() {
    std::lock_guard lock(mutex_);
    ++count_;
  }
  void Remove() {
    std::lock_guard lock(mutex_);
    if (--count_ == 0) none_.notify_all();
  }
  // Whether the count fell to zero within `timeout`.
  bool AwaitNone(absl::Duration timeout) {
    std::unique_lock lock(mutex_);
    return none_.wait_for(lock, absl::ToChronoNanoseconds(timeout), [this] { return count_ == 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable none_;
  int64_t count_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_GENERATE_LIVE_COUNT_H_
