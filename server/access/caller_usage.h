// What each caller has under way and has spent, against its limits.

#ifndef SWAA_SERVER_ACCESS_CALLER_USAGE_H_
#define SWAA_SERVER_ACCESS_CALLER_USAGE_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/access/caller.h"

namespace swaa::server {

// A request waits from its arrival until the engine accepts it, and has a place in the engine from
// its turn until its stream ends. Its turn comes at once, or, where its caller has all its places
// in use, when one of them is free, in order of coming. Tokens fill a bucket that holds a minute's
// and runs full in a minute; a request is let in while something is in it, and may take more than
// that. Callers are told apart by name. Thread-safe; times are of one steady clock.
class CallerUsage {
 public:
  // A request that waits for its turn.
  class Waiter {
   public:
    virtual ~Waiter() = default;
    // It is its turn, and it has the place. Called on the thread of whoever left it, outside locks.
    virtual void OnTurn() = 0;
  };

  // A request arrived, and waits from now on. RESOURCE_EXHAUSTED: as many wait as may
  // (`caller_queue_full`), or its tokens are spent (`caller_tokens_spent`, with the time until they
  // are not as pushback); then it does not wait.
  absl::Status Arrive(const Caller& caller, absl::Time now);
  // Takes a place in the engine. False: there is none now; `waiter` is told when it has one.
  bool TakePlace(const Caller& caller, const std::shared_ptr<Waiter>& waiter);
  // It waits for its turn no longer. False: its turn has come, or it never waited for it.
  bool LeaveTurn(const Caller& caller, const Waiter* waiter);
  // It waits no longer, as the engine has accepted it or its stream ends.
  void StopWaiting(const Caller& caller);
  // Gives its place back. Takes no memory, as a stream must always end.
  void LeavePlace(const Caller& caller);
  // Takes tokens out of the bucket.
  void Spend(const Caller& caller, int64_t tokens, absl::Time now);
  // It is everybody's turn, whatever the limits: each will find the server draining.
  void EndTurns();

 private:
  struct Usage {
    uint32_t waiting = 0;
    uint32_t places = 0;
    std::deque<std::shared_ptr<Waiter>> turns;
    double tokens = 0;  // in the bucket; below zero when more were taken
    absl::Time refilled = absl::InfinitePast();
  };

  // Brings the bucket up to now.
  static void Refill(const Caller& caller, absl::Time now, Usage* usage);
  // Takes the first whose turn it is out of the queue, and gives it a place; null: it is nobody's.
  std::shared_ptr<Waiter> NextTurn(const Caller& caller) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ForgetIfIdle(const Caller& caller) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  std::mutex mutex_;
  std::map<std::string, Usage> usage_ ABSL_GUARDED_BY(mutex_);  // by name
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_ACCESS_CALLER_USAGE_H_
