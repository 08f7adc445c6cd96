// Server room: how fast requests end, to tell those who find the queue full when to come back.

#ifndef SWAA_SERVER_DRAIN_RATE_H_
#define SWAA_SERVER_DRAIN_RATE_H_

#include <deque>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace swaa::server {

// Thread-safe.
class DrainRate {
 public:
  // A request that was in the engine has ended.
  void OnRequestEnd(absl::Time now);

  // Mean time between the last ends: when a place in the queue should be free. At least 100 ms, at
  // most 30 s; 1 s while too few have ended to tell.
  absl::Duration EstimateWait(absl::Time now) const;

 private:
  mutable absl::Mutex mutex_;
  std::deque<absl::Time> ends_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_DRAIN_RATE_H_
