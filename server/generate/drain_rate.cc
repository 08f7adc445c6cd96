// How fast requests end, to tell those who find the queue full when to come back.

#include "server/generate/drain_rate.h"

#include <algorithm>

namespace swaa::server {
namespace {

constexpr size_t kRemembered = 32;
// More who return are told the longest wait; a bound for memory.
constexpr size_t kMostReturning = 4096;

}  // namespace

void DrainRate::OnRequestBegin(absl::Time now) {
  std::lock_guard lock(mutex_);
  if (running_++ == 0) since_ = now;
}

void DrainRate::OnRequestEnd(absl::Time now) {
  std::lock_guard lock(mutex_);
  ends_.push_back(now);
  if (--running_ == 0) {
    earlier_mean_ = MeanBetweenEnds(now);
    ends_.clear();
  } else if (ends_.size() > kRemembered) {
    since_ = ends_.front();
    ends_.pop_front();
  }
}

absl::Duration DrainRate::MeanBetweenEnds(absl::Time now) const {
  const absl::Duration known =
      earlier_mean_ > absl::ZeroDuration() ? earlier_mean_ : bounds_.initial;
  if (running_ == 0 && ends_.empty()) return known;
  // Up to now, not to the last end: a server that has stopped finishing asks for longer waits.
  const absl::Duration busy = std::max(now - since_, absl::ZeroDuration());
  if (ends_.empty()) return std::max(known, busy);
  return std::max(busy / static_cast<int64_t>(ends_.size()), absl::Nanoseconds(1));
}

absl::Duration DrainRate::NextWait(absl::Time now) {
  std::lock_guard lock(mutex_);
  while (!returning_.empty() && returning_.front() <= now) returning_.pop_front();
  const auto before = static_cast<int64_t>(returning_.size());
  absl::Duration wait = MeanBetweenEnds(now) * (before + 1);
  wait = std::min(std::max(wait, bounds_.shortest), bounds_.longest);
  if (returning_.size() < kMostReturning) {
    const absl::Time when = now + wait;
    returning_.insert(std::upper_bound(returning_.begin(), returning_.end(), when), when);
  }
  return wait;
}

}  // namespace swaa::server
