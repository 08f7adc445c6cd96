// Arrival processes: their rate and burstiness.

#include "tools/bench/arrivals.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "tools/bench/statistics.h"

namespace swaa::tools::bench {
namespace {

std::vector<double> Intervals(double rate, double burstiness, uint64_t seed, int count = 50'000) {
  ArrivalProcess arrivals(rate, burstiness, seed);
  std::vector<double> intervals(count);
  double last = 0;
  for (double& interval : intervals) {
    const double now = arrivals.NextSeconds();
    interval = now - last;
    last = now;
  }
  return intervals;
}

class ArrivalsTest : public testing::TestWithParam<double> {};

TEST_P(ArrivalsTest, HaveTheRateAndVariationThatWereAsked) {
  const double burstiness = GetParam();
  const Distribution described = Describe(Intervals(4, burstiness, 11));
  const double variation = described.standard_deviation / described.mean;
  EXPECT_NEAR(described.mean, 0.25, 0.25 * 0.04);
  EXPECT_NEAR(variation, 1 / std::sqrt(burstiness), 0.05 / std::sqrt(burstiness));
}

INSTANTIATE_TEST_SUITE_P(Burstiness, ArrivalsTest, testing::Values(0.2, 0.5, 1.0, 4.0, 100.0));

TEST(ArrivalsTest, APoissonProcessHasExponentialIntervals) {
  // Half of them are below ln 2 / rate, a share exp(-3) is above 3 / rate.
  const std::vector<double> intervals = Intervals(10, 1, 12);
  double above = 0;
  for (double interval : intervals) above += interval > 0.3;
  EXPECT_NEAR(Describe(intervals).median, std::log(2) / 10, 0.002);
  EXPECT_NEAR(above / static_cast<double>(intervals.size()), std::exp(-3), 0.005);
}

TEST(ArrivalsTest, TimeNeverFallsAndTheSeedDecides) {
  for (double interval : Intervals(100, 0.05, 13)) ASSERT_GE(interval, 0);
  EXPECT_EQ(Intervals(3, 0.5, 14, 100), Intervals(3, 0.5, 14, 100));
  EXPECT_NE(Intervals(3, 0.5, 14, 100), Intervals(3, 0.5, 15, 100));
}

}  // namespace
}  // namespace swaa::tools::bench
