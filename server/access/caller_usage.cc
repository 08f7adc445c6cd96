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

std::vector<std::shared_ptr<CallerUsage::Waiter>> CallerUsage::NextTurns(const Caller& caller,
                                                                         Usage* usage) {
  std::vector<std::shared_ptr<Waiter>> next;
  while (!usage->turns.empty() &&
         (caller.max_running_requests == 0 || usage->places < caller.max_running_requests)) {
    next.push_back(std::move(usage->turns.front()));
    usage->turns.pop_front();
    ++usage->places;
  }
  return next;
}

bool CallerUsage::TakePlace(const Caller& caller, const std::shared_ptr<Waiter>& waiter) {
  std::vector<std::shared_ptr<Waiter>> next;
  {
    std::lock_guard lock(mutex_);
    Usage& usage = usage_[caller.name];
    // Behind those that came before it, though a reload may have made room for them all.
    usage.turns.push_back(waiter);
    next = NextTurns(caller, &usage);
  }
  bool has_place = false;
  for (const auto& one : next) {
    if (one == waiter) {
      has_place = true;
    } else {
      one->OnTurn();
    }
  }
  return has_place;
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
  std::vector<std::shared_ptr<Waiter>> next;
  {
    std::lock_guard lock(mutex_);
    Usage& usage = usage_[caller.name];
    SWAA_CHECK(usage.places > 0) << caller.name << " has no request in the engine";
    --usage.places;
    next = NextTurns(caller, &usage);
    ForgetIfIdle(caller);
  }
  for (const auto& waiter : next) waiter->OnTurn();
}

void CallerUsage::Spend(const Caller& caller, int64_t tokens, absl::Time now) {
  if (caller.max_tokens_per_minute == 0) return;
  std::lock_guard lock(mutex_);
  Usage& usage = usage_[caller.name];
  Refill(caller, now, &usage);
  usage.tokens -= static_cast<double>(tokens);
}

void CallerUsage::EndTurns() {
  std::vector<std::shared_ptr<Waiter>> all;
  {
    std::lock_guard lock(mutex_);
    for (auto& [name, usage] : usage_) {
      usage.places += static_cast<uint32_t>(usage.turns.size());
      for (auto& waiter : usage.turns) all.push_back(std::move(waiter));
      usage.turns.clear();
    }
  }
  for (const auto& waiter : all) waiter->OnTurn();
}

void CallerUsage::ForgetIfIdle(const Caller& caller) {
  const auto found = usage_.find(caller.name);
  // What a bucket lacks is remembered.
  if (found->second.waiting == 0 && found->second.places == 0 &&
      caller.max_tokens_per_minute == 0) {
    usage_.erase(found);
  }
}

}  // namespace swaa::server
