// A bound on how many lines one place in the code writes to the log.

#ifndef SWAA_SERVER_OBSERVATION_LOG_THROTTLE_H_
#define SWAA_SERVER_OBSERVATION_LOG_THROTTLE_H_

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <optional>

#include "absl/base/thread_annotations.h"

namespace swaa::server {

// A token bucket: `burst` lines at once, then `per_second`. Thread-safe.
class LogThrottle {
 public:
  LogThrottle(double per_second, double burst)
      : per_second_(per_second), burst_(burst), tokens_(burst) {}

  // Absent: leave the line out. Else how many were left out since the last that was written.
  std::optional<int64_t> Admit(std::chrono::steady_clock::time_point now) {
    std::lock_guard lock(mutex_);
    tokens_ = std::min(burst_,
                       tokens_ + per_second_ * std::chrono::duration<double>(now - last_).count());
    last_ = now;
    if (tokens_ < 1) {
      ++suppressed_;
      ++total_;
      return std::nullopt;
    }
    tokens_ -= 1;
    const int64_t before = suppressed_;
    suppressed_ = 0;
    return before;
  }

  // Lines left out since the start.
  int64_t total_suppressed() const {
    std::lock_guard lock(mutex_);
    return total_;
  }

 private:
  const double per_second_;
  const double burst_;
  mutable std::mutex mutex_;
  double tokens_ ABSL_GUARDED_BY(mutex_);
  std::chrono::steady_clock::time_point last_ ABSL_GUARDED_BY(mutex_) =
      std::chrono::steady_clock::now();
  int64_t suppressed_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t total_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_OBSERVATION_LOG_THROTTLE_H_
