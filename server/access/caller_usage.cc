// What each caller has under way and has spent, against its limits.

#include "server/access/caller_usage.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "server/generate/errors.h"

namespace swaa::server {
namespace {

constexpr double kSecondsPerMinute = 60;

absl::Status QueueFull(const Caller& caller) {
  return MakeError(
      absl::StatusCode::kResourceExhausted, "caller_queue_full",
      absl::StrCat("max_queued_requests: ", caller.max_queued_requests, " requests of ",
                   caller.name, " wait already; try again when some are answered"));
}

absl::Status TokensSpent(const Caller& caller, double missing) {
  const double seconds = missing * kSecondsPerMinute / caller.max_tokens_per_minute;
  return WithRetryPushback(
      MakeError(absl::StatusCode::kResourceExhausted, "caller_tokens_spent",
                absl::StrCat("max_tokens_per_minute: ", caller.name, " has spent its ",
                             caller.max_tokens_per_minute, " tokens; there are some again in ",
                             static_cast<int64_t>(std::ceil(seconds)), " s")),
      static_cast<int64_t>(std::ceil(seconds * 1e3)));
}

}  // namespace

void CallerUsage::Refill(const Caller& caller, absl::Time now, Usage* usage) {
  const double most = caller.max_tokens_per_minute;
  if (usage->refilled == absl::InfinitePast()) {
    usage->tokens = most;
  } else {
    const double seconds = std::max(0.0, absl::ToDoubleSeconds(now - usage->refilled));
    usage->tokens = std::min(most, usage->tokens + seconds / kSecondsPerMinute * most);
  }
  usage->refilled = now;
}

absl::Status CallerUsage::Arrive(const Caller& caller, absl::Time now) {
  std::lock_guard lock(mutex_);
  Usage& usage = usage_[caller.name];
  if (caller.max_queued_requests > 0 && usage.waiting >= caller.max_queued_requests) {
    return QueueFull(caller);
  }
  if (caller.max_tokens_per_minute > 0) {
    Refill(caller, now, &usage);
    if (usage.tokens < 1) return TokensSpent(caller, 1 - usage.tokens);
  }
  ++usage.waiting;
  return absl::OkStatus();
}

std::shared_ptr<CallerUsage::Waiter> CallerUsage::NextTurn(const Caller& caller) {
  const auto found = usage_.find(caller.name);
  if (found == usage_.end()) return nullptr;
  Usage& usage = found->second;
  const uint32_t most = caller.max_running_requests;
  if (usage.turns.empty() || (most > 0 && usage.places >= most)) return nullptr;
  std::shared_ptr<Waiter> next = std::move(usage.turns.front());
  usage.turns.pop_front();
  ++usage.places;
  return next;
}

bool CallerUsage::TakePlace(const Caller& caller, const std::shared_ptr<Waiter>& waiter) {
  bool queued = false;
  for (;;) {
    std::shared_ptr<Waiter> next;
    {
      std::lock_guard lock(mutex_);
      // Behind those that came before it, though a reload may have made room for them all.
      if (!queued) usage_[caller.name].turns.push_back(waiter);
      queued = true;
      next = NextTurn(caller);
    }
    if (next == waiter) return true;
    if (next == nullptr) return false;
    next->OnTurn();
  }
}

bool CallerUsage::LeaveTurn(const Caller& caller, const Waiter* waiter) {
  std::lock_guard lock(mutex_);
  const auto found = usage_.find(caller.name);
  if (found == usage_.end()) return false;
  auto& turns = found->second.turns;
  const auto place = std::find_if(turns.begin(), turns.end(),
                                  [&](const auto& one) { return one.get() == waiter; });
  if (place == turns.end()) return false;
  turns.erase(place);
  return true;
}

void CallerUsage::StopWaiting(const Caller& caller) {
  std::lock_guard lock(mutex_);
  Usage& usage = usage_[caller.name];
  SWAA_CHECK(usage.waiting > 0) << caller.name << " has no request that waits";
  --usage.waiting;
  ForgetIfIdle(caller);
}

void CallerUsage::LeavePlace(const Caller& caller) {
  bool left = false;
  for (;;) {
    std::shared_ptr<Waiter> next;
    {
      std::lock_guard lock(mutex_);
      if (!left) {
        Usage& usage = usage_[caller.name];
        SWAA_CHECK(usage.places > 0) << caller.name << " has no request in the engine";
        --usage.places;
      }
      left = true;
      next = NextTurn(caller);
      if (next == nullptr) return ForgetIfIdle(caller);
    }
    next->OnTurn();
  }
}

void CallerUsage::Spend(const Caller& caller, int64_t tokens, absl::Time now) {
  if (caller.max_tokens_per_minute == 0) return;
  std::lock_guard lock(mutex_);
  Usage& usage = usage_[caller.name];
  Refill(caller, now, &usage);
  usage.tokens -= static_cast<double>(tokens);
}

void CallerUsage::EndTurns() {
  for (;;) {
    std::shared_ptr<Waiter> next;
    {
      std::lock_guard lock(mutex_);
      const auto waits = std::find_if(usage_.begin(), usage_.end(),
                                      [](const auto& one) { return !one.second.turns.empty(); });
      if (waits == usage_.end()) return;
      Usage& usage = waits->second;
      next = std::move(usage.turns.front());
      usage.turns.pop_front();
      ++usage.places;
    }
    next->OnTurn();
  }
}

void CallerUsage::ForgetIfIdle(const Caller& caller) {
  const auto found = usage_.find(caller.name);
  // What a bucket lacks is remembered.
  if (found != usage_.end() && found->second.waiting == 0 && found->second.places == 0 &&
      caller.max_tokens_per_minute == 0) {
    usage_.erase(found);
  }
}

}  // namespace swaa::server
