// Length distributions: their range, moments and messages.

#include "tools/bench/lengths.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tools/bench/statistics.h"

namespace swaa::tools::bench {
namespace {

constexpr int kDraws = 50'000;

std::vector<double> DrawMany(const std::string& text, uint64_t seed) {
  const absl::StatusOr<LengthDistribution> lengths = LengthDistribution::Parse(text);
  EXPECT_TRUE(lengths.ok()) << lengths.status();
  std::mt19937_64 generator(seed);
  std::vector<double> values(kDraws);
  for (double& value : values) value = lengths->Draw(generator);
  return values;
}

TEST(LengthsTest, AFixedLengthIsAlwaysTheSame) {
  for (double value : DrawMany("512", 1)) ASSERT_EQ(value, 512);
  EXPECT_EQ(LengthDistribution::Parse("512")->max(), 512u);
}

TEST(LengthsTest, ARangeIsUniformAndReachesBothEnds) {
  const std::vector<double> values = DrawMany("100:300", 2);
  EXPECT_EQ(*std::min_element(values.begin(), values.end()), 100);
  EXPECT_EQ(*std::max_element(values.begin(), values.end()), 300);
  const Distribution described = Describe(values);
  // 201 values: variance (201^2 - 1) / 12. The mean of 50,000 draws is off by 0.26 (one sigma).
  EXPECT_NEAR(described.mean, 200, 1.5);
  EXPECT_NEAR(described.standard_deviation, std::sqrt((201.0 * 201 - 1) / 12), 1.0);
}

TEST(LengthsTest, LogNormalHasTheMeanAndSigmaThatWereAsked) {
  const std::vector<double> values = DrawMany("lognormal:800:0.6:1:1000000", 3);
  EXPECT_NEAR(Describe(values).mean, 800, 800 * 0.02);
  std::vector<double> logs;
  for (double value : values) logs.push_back(std::log(value));
  const Distribution described = Describe(logs);
  EXPECT_NEAR(described.standard_deviation, 0.6, 0.02);
  EXPECT_NEAR(described.mean, std::log(800) - 0.6 * 0.6 / 2, 0.02);
}

TEST(LengthsTest, LogNormalIsClamped) {
  const std::vector<double> values = DrawMany("lognormal:800:1.5:200:1000", 4);
  EXPECT_EQ(*std::min_element(values.begin(), values.end()), 200);
  EXPECT_EQ(*std::max_element(values.begin(), values.end()), 1000);
  EXPECT_EQ(LengthDistribution::Parse("lognormal:800:1.5:200:1000")->max(), 1000u);
}

TEST(LengthsTest, TheSameSeedGivesTheSameLengths) {
  EXPECT_EQ(DrawMany("1:100000", 7), DrawMany("1:100000", 7));
  EXPECT_NE(DrawMany("1:100000", 7), DrawMany("1:100000", 8));
}

TEST(LengthsTest, RefusesWhatIsNoDistribution) {
  for (const char* text :
       {"", "0", "-5", "ten", "5:4", "1:2:3", "0:9", "lognormal", "lognormal:800",
        "lognormal:800:0.5", "lognormal:-1:0.5:1:9", "lognormal:8:-1:1:9", "lognormal:nan:1:1:9",
        "lognormal:8:1:9:1", "lognormal:8:1:0:9", "normal:8:1:1:9", "99999999999"}) {
    const absl::StatusOr<LengthDistribution> parsed = LengthDistribution::Parse(text);
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(parsed.status().message()),
                testing::AllOf(testing::HasSubstr(std::string("\"") + text + "\""),
                               testing::HasSubstr("100:2000")));
  }
}

}  // namespace
}  // namespace swaa::tools::bench
