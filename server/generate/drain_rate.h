// How fast requests end, to tell those who find the queue full when to come back.

#ifndef SWAA_SERVER_GENERATE_DRAIN_RATE_H_
#define SWAA_SERVER_GENERATE_DRAIN_RATE_H_

#include <cstdint>
#include <deque>
#include <mutex>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"

namespace swaa::server {

// A place in the queue becomes free whenever a request ends. The mean time between ends is measured
// while any request runs; idle time says nothing about it. Thread-safe.
class DrainRate {
 public:
  struct Bounds {
    absl::Duration initial = absl::Seconds(1);          // while too few requests have ended to tell
    absl::Duration shortest = absl::Milliseconds(100);  // at least this
    absl::Duration longest = absl::Seconds(30);         // at most this; wins over `shortest`
  };

  DrainRate() : DrainRate(Bounds()) {}
  explicit DrainRate(const Bounds& bounds) : bounds_(bounds) {}

  // Before the first request, and not while there are any.
  void set_bounds(const Bounds& bounds) { bounds_ = bounds; }

  // The engine has taken a request up, or is done with one.
  void OnRequestBegin(absl::Time now);
  void OnRequestEnd(absl::Time now);

  // When one who is refused now should come back: behind all who were refused before and have not
  // come back yet, one for each place that becomes free. So that they do not all come at once.
  absl::Duration NextWait(absl::Time now);

 private:
  absl::Duration MeanBetweenEnds(absl::Time now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Bounds bounds_;
  mutable std::mutex mutex_;
  int64_t running_ ABSL_GUARDED_BY(mutex_) = 0;
  // The last ends since the server was last idle, behind the time from which they count.
  absl::Time since_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  std::deque<absl::Time> ends_ ABSL_GUARDED_BY(mutex_);
  // What the time before that said; zero: nothing.
  absl::Duration earlier_mean_ ABSL_GUARDED_BY(mutex_);
  // When those who were refused come back, in order.
  std::deque<absl::Time> returning_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_GENERATE_DRAIN_RATE_H_
