// Time that no one sets.

#ifndef SWAA_SERVER_GENERATE_STEADY_TIME_H_
#define SWAA_SERVER_GENERATE_STEADY_TIME_H_

#include <chrono>

#include "absl/time/time.h"
#include "engine/generation.h"

namespace swaa::server {

// Now, on the steady clock, since an epoch of its own. Durations and deadlines are computed with
// it, so that a wall clock that is set neither ends a request nor makes one last a day. Never mixed
// with absl::Now(), which is for logs. Thread-safe.
inline absl::Time SteadyNow() {
  return absl::UnixEpoch() + absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

// A time of SteadyNow as the engine writes it; years away is never.
inline SteadyTime OnEngineClock(absl::Time time) {
  const absl::Duration since_epoch = time - absl::UnixEpoch();
  if (since_epoch > absl::Hours(24 * 365 * 100)) return SteadyTime::max();
  return SteadyTime(absl::ToChronoNanoseconds(since_epoch));
}

}  // namespace swaa::server

#endif  // SWAA_SERVER_GENERATE_STEADY_TIME_H_
