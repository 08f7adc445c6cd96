// The statistics against SciPy, statsmodels and ddsketch (make_statistics_goldens.py), and what
// must hold of them whatever the numbers.

#include <cmath>
#include <fstream>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "server/experiments/statistics/always_valid.h"
#include "server/experiments/statistics/distributions.h"
#include "server/experiments/statistics/paired_difference.h"
#include "server/experiments/statistics/power.h"
#include "server/experiments/statistics/quantile_sketch.h"
#include "server/experiments/statistics/ratio_estimate.h"
#include "server/experiments/statistics/sample_ratio.h"

namespace swaa::server {
namespace {

const nlohmann::json& Goldens() {
  static const nlohmann::json* const kGoldens = [] {
    std::ifstream file("tests/data/experiments/statistics_goldens.json");
    return new nlohmann::json(nlohmann::json::parse(file));
  }();
  return *kGoldens;
}

// Relative, or absolute where the expected value is small.
void ExpectClose(double actual, double expected, double tolerance = 1e-9) {
  EXPECT_NEAR(actual, expected, tolerance * std::max(std::abs(expected), 1e-6));
}

TEST(DistributionsTest, AreSciPys) {
  const nlohmann::json& golden = Goldens()["distributions"];
  for (const auto& each : golden["normal_quantiles"]) {
    ExpectClose(NormalQuantile(each[0]), each[1]);
  }
  for (const auto& each : golden["normal_cdfs"]) ExpectClose(NormalCdf(each[0]), each[1]);
  for (const auto& each : golden["student_quantiles"]) {
    ExpectClose(StudentQuantile(each[0], each[1]), each[2]);
  }
  for (const auto& each : golden["student_p_values"]) {
    ExpectClose(StudentTwoSidedPValue(each[0], each[1]), each[2]);
  }
  for (const auto& each : golden["chi_squared_p_values"]) {
    ExpectClose(ChiSquaredPValue(each[0], each[1]), each[2]);
  }
}

std::vector<GroupTotals> OneEach(const nlohmann::json& values) {
  std::vector<GroupTotals> groups;
  for (const double value : values) groups.push_back({value, 1});
  return groups;
}

TEST(RatioEstimateTest, OneRequestAUnitIsWelchsTest) {
  for (const nlohmann::json& golden : Goldens()["welch"]) {
    const EffectEstimate estimate =
        Difference(EstimateRatio(OneEach(golden["treatment"])),
                   EstimateRatio(OneEach(golden["control"])), /*unequal_shares=*/false);
    ExpectClose(estimate.effect, golden["effect"]);
    ExpectClose(estimate.effect / estimate.standard_error, golden["t"]);
    ExpectClose(estimate.degrees_of_freedom, golden["degrees"]);
    ExpectClose(SingleLookPValue(estimate), golden["p_value"]);
  }
}

TEST(RatioEstimateTest, ManyRequestsAUnitAreClusteredRegression) {
  for (const nlohmann::json& golden : Goldens()["clustered"]) {
    std::vector<Sum> sums;
    for (size_t unit = 0; unit < golden["counts"].size(); ++unit) {
      sums.push_back({golden["counts"][unit], golden["sums"][unit]});
    }
    sums.push_back({});  // a group without data changes nothing
    const RatioEstimate estimate = EstimateRatio(sums);
    ExpectClose(estimate.value, golden["value"]);
    ExpectClose(std::sqrt(estimate.variance), golden["standard_error"]);
  }
}

TEST(RatioEstimateTest, LogRatioIsTheDeltaMethod) {
  const RatioEstimate treatment = {.value = 3, .variance = 0.09, .denominator = 50, .groups = 20};
  const RatioEstimate control = {.value = 2, .variance = 0.04, .denominator = 50, .groups = 20};
  const EffectEstimate estimate = LogRatio(treatment, control, false);
  ExpectClose(estimate.effect, std::log(1.5));
  ExpectClose(estimate.standard_error, std::sqrt(0.01 + 0.01));
}

TEST(RatioEstimateTest, UnequalSharesNeverHaveLessThanThePooledVariance) {
  // A small arm that has seen none of the rare large values yet.
  const RatioEstimate control = {.value = 1, .variance = 4e-4, .denominator = 9000, .groups = 200};
  const RatioEstimate small = {.value = 1, .variance = 1e-6, .denominator = 1000, .groups = 200};
  const double pooled = (4e-4 * 9000 * 9000 + 1e-6 * 1000 * 1000) / 10000;
  ExpectClose(Difference(small, control, true).standard_error, std::sqrt(pooled / 1000 + 4e-4));
  ExpectClose(Difference(small, control, false).standard_error, std::sqrt(1e-6 + 4e-4));
}

TEST(RatioEstimateTest, NothingAndOneGroupHaveNoVariance) {
  EXPECT_FALSE(EstimateRatio(std::vector<Sum>(256)).usable());
  std::vector<Sum> one(256);
  one[7] = {5, 10};
  EXPECT_FALSE(EstimateRatio(one).usable());
  EXPECT_EQ(EstimateRatio(one).value, 2);
}

TEST(AlwaysValidTest, IntervalsAndPValuesAreTheFormulas) {
  for (const nlohmann::json& golden : Goldens()["always_valid"]) {
    const double error = golden["standard_error"];
    ExpectClose(AlwaysValidHalfWidth(error, golden["tau"], golden["alpha"]), golden["half_width"]);
    ExpectClose(AlwaysValidPValue(golden["effect"], error, golden["tau"]), golden["p_value"]);
    ExpectClose(OneSidedMargin(error, golden["tau"], golden["alpha"]), golden["one_sided"]);
  }
}

TEST(AlwaysValidTest, TheIntervalLeavesZeroOutWhereThePValueIsBelowAlpha) {
  constexpr double kTau = 0.05;
  for (double error = 0.001; error < 10; error *= 1.7) {
    const double width = AlwaysValidHalfWidth(error, kTau, 0.05);
    EXPECT_NEAR(AlwaysValidPValue(width, error, kTau), 0.05, 1e-9) << error;
    EXPECT_GT(width, 1.96 * error);
    EXPECT_LT(OneSidedMargin(error, kTau, 0.05), width);
  }
  // One group's zero is not certainty.
  EXPECT_TRUE(std::isinf(AlwaysValidHalfWidth(0, kTau, 0.05)));
  EXPECT_EQ(AlwaysValidPValue(3, 0, kTau), 1);
}

TEST(AlwaysValidTest, HolmIsStatsmodels) {
  for (const nlohmann::json& golden : Goldens()["holm"]) {
    const std::vector<double> adjusted = HolmAdjusted(golden["p_values"]);
    ASSERT_EQ(adjusted.size(), golden["adjusted"].size());
    for (size_t i = 0; i < adjusted.size(); ++i) ExpectClose(adjusted[i], golden["adjusted"][i]);
  }
  EXPECT_TRUE(HolmAdjusted({}).empty());
}

TEST(SampleRatioTest, IsSciPys) {
  for (const nlohmann::json& golden : Goldens()["sample_ratio"]) {
    const std::vector<uint64_t> units = golden["units"];
    const std::vector<double> shares = golden["shares"];
    ExpectClose(LogSampleRatioBayesFactor(units, shares), golden["log_bayes_factor"], 1e-7);
    ExpectClose(SampleRatioChiSquaredPValue(units, shares), golden["chi_squared_p_value"]);
  }
  ExpectClose(LogSampleRatioBayesFactor({5200, 4800}, {0.5, 0.5}), 6.0758, 1e-4);
  EXPECT_EQ(LogSampleRatioPValue({0, 0}, {0.5, 0.5}), 0);
  EXPECT_EQ(SampleRatioChiSquaredPValue({0, 0}, {0.5, 0.5}), 1);
}

TEST(PowerTest, IsStatsmodels) {
  for (const nlohmann::json& golden : Goldens()["power"]) {
    const double effect = golden["effect"];
    const double alpha = golden["alpha"];
    const double units = golden["units_per_arm"];
    const double error = std::sqrt(2 / units);
    ExpectClose(FixedDesignPower(effect, error, alpha), 0.8, 1e-6);
    ExpectClose(FixedDesignPower(effect, std::sqrt(4 / units), alpha), golden["power_at_half"],
                1e-6);
    ExpectClose(PlannedStandardError(effect, alpha), error, 1e-4);
    // Of 1.6 times as many, for looking at any time, half are there.
    const uint64_t seen = static_cast<uint64_t>(std::llround(0.8 * 2 * units));
    ExpectClose(static_cast<double>(FurtherUnits(seen, error / std::sqrt(0.8), effect, alpha)),
                static_cast<double>(seen), 0.02);
    EXPECT_EQ(FurtherUnits(seen, error / 2, effect, alpha), 0u);
  }
}

TEST(PairedDifferenceTest, IsThePairedTStatistic) {
  const EffectEstimate estimate = PairedDifference({1, 2, 3, 6});
  ExpectClose(estimate.effect, 3);
  ExpectClose(estimate.standard_error, std::sqrt(14.0 / 3 / 4));
  EXPECT_EQ(estimate.degrees_of_freedom, 3);
  EXPECT_EQ(PairedDifference({5}).standard_error, 0);
}

TEST(QuantileSketchTest, BinsAreDdsketchs) {
  const nlohmann::json& golden = Goldens()["sketch"];
  QuantileSketch sketch;
  for (size_t i = 0; i < golden["values"].size(); ++i) {
    const double value = golden["values"][i];
    const int32_t bin = SketchBin(value);
    EXPECT_EQ(bin, golden["bins"][i]) << value;
    EXPECT_NEAR(SketchBinValue(bin), value, 0.01 * value * (1 + 1e-9));
    sketch.Add(static_cast<int32_t>(i % kSketchGroups), {{bin, 1}});
  }
  for (const auto& each : golden["bin_values"]) ExpectClose(SketchBinValue(each[0]), each[1]);
  for (const auto& each : golden["quantiles"]) {
    const QuantileEstimate estimate = sketch.Quantile(each[0]);
    const double expected = each[1];
    ASSERT_TRUE(estimate.enough);
    EXPECT_NEAR(estimate.value, expected, 0.021 * expected);
    EXPECT_LT(estimate.lower, estimate.value);
    EXPECT_GT(estimate.upper, estimate.value);
  }
  EXPECT_FALSE(sketch.Quantile(0.99).enough);  // four of 400 are too few
}

TEST(QuantileSketchTest, FailedRequestsAreInfinitelySlow) {
  QuantileSketch sketch;
  for (int i = 0; i < 1000; ++i) {
    sketch.Add(i % kSketchGroups, {{i % 5 == 0 ? kInfiniteBin : SketchBin(0.5), 1}});
  }
  EXPECT_NEAR(sketch.Quantile(0.5).value, 0.5, 0.01);
  EXPECT_TRUE(std::isinf(sketch.Quantile(0.9).value));
  EXPECT_TRUE(std::isinf(sketch.Quantile(0.9).log_standard_error));
  EXPECT_EQ(SketchBin(std::numeric_limits<double>::infinity()), kInfiniteBin);
  EXPECT_EQ(SketchBin(0), SketchBin(1e-9));
}

// Sums and sketches by group add up to the same whoever counted them; a replica's sums of squares
// would not.
TEST(RatioEstimateTest, FourReplicasAddUpToOne) {
  const uint32_t seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  std::vector<Sum> whole(kUnitGroups);
  std::vector<std::vector<Sum>> parts(4, whole);
  for (int i = 0; i < 20000; ++i) {
    const size_t group = random() % kUnitGroups;
    const Sum one = {1, static_cast<double>(random() % 1000)};
    whole[group] += one;
    parts[random() % 4][group] += one;
  }
  std::vector<Sum> merged(kUnitGroups);
  for (const std::vector<Sum>& part : parts) {
    for (size_t group = 0; group < part.size(); ++group) merged[group] += part[group];
  }
  EXPECT_EQ(EstimateRatio(merged).value, EstimateRatio(whole).value);
  EXPECT_EQ(EstimateRatio(merged).variance, EstimateRatio(whole).variance);
}

}  // namespace
}  // namespace swaa::server
