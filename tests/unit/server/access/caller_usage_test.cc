// Places, turns and tokens of callers, on a clock that stands.

#include "server/access/caller_usage.h"

#include <thread>

#include <gtest/gtest.h>

#include "server/access/request_owners.h"
#include "server/generate/errors.h"

namespace swaa::server {
namespace {

constexpr absl::Time kStart = absl::UnixEpoch();

struct RecordingWaiter final : CallerUsage::Waiter {
  void OnTurn() override { ++turns; }
  std::atomic<int> turns{0};
};

Caller Limited(uint32_t running, uint32_t queued, uint32_t tokens = 0) {
  Caller caller;
  caller.name = "a";
  caller.max_running_requests = running;
  caller.max_queued_requests = queued;
  caller.max_tokens_per_minute = tokens;
  return caller;
}

TEST(CallerUsageTest, TurnsComeInOrderAsPlacesGetFree) {
  CallerUsage usage;
  const Caller caller = Limited(2, 0);
  std::vector<std::shared_ptr<RecordingWaiter>> waiters;
  for (int i = 0; i < 5; ++i) {
    waiters.push_back(std::make_shared<RecordingWaiter>());
    EXPECT_EQ(usage.TakePlace(caller, waiters.back()), i < 2);
  }
  EXPECT_FALSE(usage.LeaveTurn(caller, waiters[0].get()));
  EXPECT_TRUE(usage.LeaveTurn(caller, waiters[2].get()));
  EXPECT_FALSE(usage.LeaveTurn(caller, waiters[2].get()));
  usage.LeavePlace(caller);
  EXPECT_EQ(waiters[3]->turns, 1);
  EXPECT_EQ(waiters[4]->turns, 0);
  usage.EndTurns();
  EXPECT_EQ(waiters[4]->turns, 1);
  for (int i = 0; i < 3; ++i) usage.LeavePlace(caller);
  EXPECT_EQ(waiters[0]->turns + waiters[1]->turns + waiters[2]->turns, 0);
}

// A reload that raises the limit lets in those that wait before whoever comes then.
TEST(CallerUsageTest, ALimitThatRisesIsForThoseThatWait) {
  CallerUsage usage;
  const auto first = std::make_shared<RecordingWaiter>();
  const auto second = std::make_shared<RecordingWaiter>();
  const auto third = std::make_shared<RecordingWaiter>();
  EXPECT_TRUE(usage.TakePlace(Limited(1, 0), first));
  EXPECT_FALSE(usage.TakePlace(Limited(1, 0), second));
  EXPECT_FALSE(usage.TakePlace(Limited(2, 0), third));
  EXPECT_EQ(second->turns, 1);
  EXPECT_EQ(third->turns, 0);
  // What came under no limit lets the next in as well.
  usage.LeavePlace(Limited(0, 0));
  EXPECT_EQ(third->turns, 1);
}

TEST(CallerUsageTest, AFullQueueIsOneCallersOwn) {
  CallerUsage usage;
  const Caller caller = Limited(0, 2);
  EXPECT_TRUE(usage.Arrive(caller, kStart).ok());
  EXPECT_TRUE(usage.Arrive(caller, kStart).ok());
  EXPECT_EQ(ErrorReason(usage.Arrive(caller, kStart)), "caller_queue_full");
  Caller other = caller;
  other.name = "b";
  EXPECT_TRUE(usage.Arrive(other, kStart).ok());
  usage.StopWaiting(caller);
  EXPECT_TRUE(usage.Arrive(caller, kStart).ok());
}

TEST(CallerUsageTest, TokensRunFullInAMinute) {
  CallerUsage usage;
  const Caller caller = Limited(0, 0, /*tokens=*/60);
  const auto may = [&](double seconds) {
    return usage.Arrive(caller, kStart + absl::Seconds(seconds));
  };
  EXPECT_TRUE(may(0).ok());
  usage.Spend(caller, 70, kStart);  // 10 more than there were
  const absl::Status refused = may(1);
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ErrorReason(refused), "caller_tokens_spent");
  EXPECT_EQ(RetryPushbackMs(refused), 10000);
  EXPECT_TRUE(may(11).ok());
  // Never more than a minute's.
  usage.Spend(caller, 60, kStart + absl::Hours(1));
  EXPECT_FALSE(usage.Arrive(caller, kStart + absl::Hours(1)).ok());
}

TEST(CallerUsageTest, EveryTurnComesOnceWithManyThreads) {
  CallerUsage usage;
  const Caller caller = Limited(3, 0);
  std::atomic<int> in_engine{0}, most{0}, done{0};
  struct Request final : CallerUsage::Waiter {
    std::atomic<bool> turn{false};
    void OnTurn() override { turn = true; }
  };
  const auto one = [&] {
    for (int i = 0; i < 200; ++i) {
      const auto request = std::make_shared<Request>();
      if (!usage.TakePlace(caller, request)) {
        while (!request->turn) std::this_thread::yield();
      }
      const int now = ++in_engine;
      for (int seen = most; now > seen && !most.compare_exchange_weak(seen, now);) {
      }
      --in_engine;
      ++done;
      usage.LeavePlace(caller);
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i) threads.emplace_back(one);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(done, 1200);
  EXPECT_LE(most, 3);
}

TEST(RequestOwnersTest, AnIdIsItsTakersUntilTheStreamEnds) {
  RequestOwners owners;
  const int first = 0, second = 0;
  owners.Enter(&first, "a");
  owners.Enter(&second, "b");
  EXPECT_FALSE(owners.Owns("a", "x")) << "the engine has not taken it";
  owners.Take(&first, "x");
  EXPECT_TRUE(owners.Owns("a", "x"));
  EXPECT_FALSE(owners.Owns("b", "x"));
  // The first has ended in the engine, and the second came by its id before its stream was gone.
  owners.Take(&second, "x");
  owners.Leave(&first);
  EXPECT_TRUE(owners.Owns("b", "x"));
  owners.Leave(&second);
  EXPECT_FALSE(owners.Owns("b", "x"));
  owners.Take(&first, "x");
  EXPECT_FALSE(owners.Owns("a", "x")) << "its stream has ended";
}

}  // namespace
}  // namespace swaa::server
