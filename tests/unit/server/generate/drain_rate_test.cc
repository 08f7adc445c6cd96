// When those who found the queue full are asked to come back.

#include "server/generate/drain_rate.h"

#include <gtest/gtest.h>

namespace swaa::server {
namespace {

const absl::Time kStart = absl::FromUnixSeconds(1000);
absl::Time At(double seconds) { return kStart + absl::Seconds(seconds); }

// One request at a time, `count` of them, each `seconds` long.
void RunOneByOne(DrainRate* rate, double from, int count, double seconds) {
  for (int i = 0; i < count; ++i) {
    rate->OnRequestBegin(At(from + i * seconds));
    rate->OnRequestEnd(At(from + (i + 1) * seconds));
  }
}

TEST(DrainRateTest, GuessesUntilSomethingEnded) {
  DrainRate rate({.initial = absl::Seconds(3)});
  EXPECT_EQ(rate.NextWait(At(0)), absl::Seconds(3));
}

TEST(DrainRateTest, MeanTimeBetweenEndsWithManyAtOnce) {
  DrainRate rate;
  for (int i = 0; i < 100; ++i) rate.OnRequestBegin(At(0));
  for (int i = 1; i <= 60; ++i) rate.OnRequestEnd(At(i * 0.5));
  EXPECT_NEAR(absl::ToDoubleSeconds(rate.NextWait(At(30))), 0.5, 0.01);
}

TEST(DrainRateTest, EachWhoIsRefusedGetsThePlaceAfterTheLast) {
  DrainRate rate({.longest = absl::Seconds(2)});
  rate.OnRequestBegin(At(0));
  RunOneByOne(&rate, 0, 10, 0.4);
  for (int i = 1; i <= 5; ++i) {
    EXPECT_NEAR(absl::ToDoubleSeconds(rate.NextWait(At(4))), 0.4 * i, 1e-6);
  }
  EXPECT_EQ(rate.NextWait(At(4)), absl::Seconds(2)) << "the longest";
  // All have come back: the next is the first again.
  EXPECT_LT(rate.NextWait(At(7)), absl::Seconds(0.8));
}

TEST(DrainRateTest, IdleTimeIsNoTimeBetweenEnds) {
  DrainRate rate;
  RunOneByOne(&rate, 0, 20, 0.25);
  EXPECT_NEAR(absl::ToDoubleSeconds(rate.NextWait(At(3600))), 0.25, 1e-6);
  rate.OnRequestBegin(At(7200));
  EXPECT_NEAR(absl::ToDoubleSeconds(rate.NextWait(At(7200.1))), 0.25, 1e-6);
}

TEST(DrainRateTest, StalledServerAsksForLongerWaits) {
  DrainRate rate;
  RunOneByOne(&rate, 0, 20, 0.25);
  rate.OnRequestBegin(At(10));
  EXPECT_EQ(rate.NextWait(At(14)), absl::Seconds(4));
  EXPECT_EQ(rate.NextWait(At(1000)), absl::Seconds(30));
}

TEST(DrainRateTest, NeverShorterThanItsBound) {
  DrainRate rate({.shortest = absl::Milliseconds(200)});
  RunOneByOne(&rate, 0, 20, 0.001);
  EXPECT_EQ(rate.NextWait(At(1)), absl::Milliseconds(200));
}

}  // namespace
}  // namespace swaa::server
