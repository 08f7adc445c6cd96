// Server room: how fast requests end, to tell those who find the queue full when to come back.

#include "server/drain_rate.h"

#include <algorithm>

namespace swaa::server {
namespace {

constexpr size_t kRemembered = 32;
constexpr absl::Duration kShortest = absl::Milliseconds(100);
constexpr absl::Duration kLongest = absl::Seconds(30);
constexpr absl::Duration kUnknown = absl::Seconds(1);

}  // namespace

void DrainRate::OnRequestEnd(absl::Time now) {
  absl::MutexLock lock(&mutex_);
  ends_.push_back(now);
  if (ends_.size() > kRemembered) ends_.pop_front();
}

absl::Duration DrainRate::EstimateWait(absl::Time now) const {
  absl::MutexLock lock(&mutex_);
  if (ends_.size() < 2) return kUnknown;
  // Up to now, not to the last end: a server that has stopped finishing asks for longer waits.
  const absl::Duration mean = (now - ends_.front()) / static_cast<int64_t>(ends_.size());
  return std::clamp(mean, kShortest, kLongest);
}

}  // namespace swaa::server
