// Statistics against their definitions.

#include "tools/bench/statistics.h"

#include <algorithm>
#include <cmath>
#include <random>

#include <gtest/gtest.h>

namespace swaa::tools::bench {
namespace {

// The percentile as an integral definition: the value at rank r of the piecewise linear function
// through the points (k, k-th smallest), walked interval by interval.
double NaivePercentile(std::vector<double> values, double percent) {
  for (size_t i = 0; i < values.size(); ++i) {
    for (size_t j = i + 1; j < values.size(); ++j) {
      if (values[j] < values[i]) std::swap(values[i], values[j]);
    }
  }
  double rank = percent / 100 * static_cast<double>(values.size() - 1);
  size_t k = 0;
  while (rank >= 1) {
    ++k;
    rank -= 1;
  }
  return k + 1 < values.size() ? values[k] * (1 - rank) + values[k + 1] * rank : values[k];
}

TEST(StatisticsTest, PercentilesAgreeWithNumpys) {
  // numpy.percentile([15, 20, 35, 40, 50], ...).
  const std::vector<double> values = {15, 20, 35, 40, 50};
  EXPECT_DOUBLE_EQ(PercentileOfSorted(values, 0), 15);
  EXPECT_DOUBLE_EQ(PercentileOfSorted(values, 40), 29);
  EXPECT_DOUBLE_EQ(PercentileOfSorted(values, 50), 35);
  EXPECT_DOUBLE_EQ(PercentileOfSorted(values, 90), 46);
  EXPECT_DOUBLE_EQ(PercentileOfSorted(values, 99), 49.6);
  EXPECT_DOUBLE_EQ(PercentileOfSorted(values, 100), 50);
}

TEST(StatisticsTest, AgreeWithTheNaiveOnesOnRandomSamples) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 generator(seed);
    std::vector<double> values(1 + generator() % 60);
    for (double& value : values) value = static_cast<double>(generator() % 1000) / 7;
    const Distribution described = Describe(values);
    double sum = 0;
    double squares = 0;
    for (double value : values) {
      sum += value;
      squares += value * value;
    }
    const double count = static_cast<double>(values.size());
    const double variance = squares / count - sum / count * sum / count;
    EXPECT_EQ(described.count, values.size());
    EXPECT_NEAR(described.mean, sum / count, 1e-9);
    EXPECT_NEAR(described.standard_deviation, std::sqrt(std::max(0.0, variance)), 1e-5);
    EXPECT_NEAR(described.median, NaivePercentile(values, 50), 1e-9);
    EXPECT_NEAR(described.p90, NaivePercentile(values, 90), 1e-9);
    EXPECT_NEAR(described.p99, NaivePercentile(values, 99), 1e-9);
  }
}

TEST(StatisticsTest, OfNothingAreNone) {
  const Distribution described = Describe({});
  EXPECT_EQ(described.count, 0u);
  EXPECT_EQ(described.p99, 0);
}

}  // namespace
}  // namespace swaa::tools::bench
