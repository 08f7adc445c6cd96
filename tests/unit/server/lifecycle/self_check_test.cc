// When the server is told that nobody reaches it.

#include "server/lifecycle/self_check.h"

#include <atomic>
#include <latch>

#include <gtest/gtest.h>

namespace swaa::server {
namespace {

TEST(SelfCheckTest, TwoFailuresAreAChangeAndLongOnesTheEnd) {
  ASSERT_EQ(absl::StatusCode::kUnavailable, absl::UnavailableError("").code());
  std::atomic<bool> reached{true};
  std::atomic<int> probes{0};
  const auto probe = [&] {
    ++probes;
    return reached ? absl::OkStatus() : absl::UnavailableError("no answer");
  };
  {
    std::latch not_ready(1), ready(1);
    SelfCheck check(
        {.interval = absl::Milliseconds(5), .dead_after = absl::Hours(1)}, probe,
        [&](bool now) { (now ? ready : not_ready).count_down(); },
        [] { ADD_FAILURE() << "an hour has not passed"; });
    while (probes < 20) std::this_thread::yield();
    EXPECT_FALSE(not_ready.try_wait());
    reached = false;
    not_ready.wait();
    reached = true;
    ready.wait();
  }
  reached = false;
  std::latch dead(1);
  SelfCheck check(
      {.interval = absl::Milliseconds(5), .dead_after = absl::Milliseconds(60)}, probe, [](bool) {},
      [&] { dead.count_down(); });
  dead.wait();
}

TEST(SelfCheckTest, AFullServerIsNotADeadOne) {
  std::atomic<int> probes{0};
  std::atomic<int> changes{0};
  SelfCheck check(
      {.interval = absl::Milliseconds(1), .dead_after = absl::Milliseconds(5)},
      [&] {
        ++probes;
        return absl::ResourceExhaustedError("turned away");
      },
      [&](bool) { ++changes; }, [&] { ++changes; });
  while (probes < 50) std::this_thread::yield();
  EXPECT_EQ(changes, 0);
}

}  // namespace
}  // namespace swaa::server
