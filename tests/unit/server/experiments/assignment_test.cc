// Hash, ranges and windows against vectors that other languages read too, and the properties that
// randomised assignment stands on.

#include "server/experiments/assignment.h"

#include <cmath>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace swaa::server {
namespace {

nlohmann::json Vectors() {
  std::ifstream file("tests/data/experiments/assignment_vectors.json");
  return nlohmann::json::parse(file);
}

TEST(AssignmentTest, HashesAreThoseOfTheVectors) {
  const nlohmann::json vectors = Vectors()["hashes"];
  ASSERT_GE(vectors.size(), 8u);
  for (const nlohmann::json& vector : vectors) {
    const uint64_t hash =
        AssignmentHash(vector["salt"].get<std::string>(), vector["unit"].get<std::string>());
    EXPECT_EQ(absl::StrCat(absl::Hex(hash, absl::kZeroPad16)), vector["hash"]) << vector;
    EXPECT_EQ(BucketOf(hash), vector["bucket"]) << vector;
    EXPECT_EQ(GroupOf(hash), vector["group"]) << vector;
  }
}

TEST(AssignmentTest, RangesAreThoseOfTheVectors) {
  const nlohmann::json vectors = Vectors()["arm_ranges"];
  ASSERT_GE(vectors.size(), 4u);
  for (const nlohmann::json& vector : vectors) {
    std::vector<BucketRange> expected;
    for (const nlohmann::json& range : vector["ranges"]) expected.push_back({range[0], range[1]});
    EXPECT_EQ(ArmRanges(vector["weights"].get<std::vector<uint32_t>>(), vector["coverage"]),
              expected)
        << vector;
  }
}

TEST(AssignmentTest, WindowsAreThoseOfTheVectors) {
  const nlohmann::json vectors = Vectors()["switchback"];
  const std::string salt = vectors["salt"];
  for (size_t pair = 0; pair < vectors["pair_buckets"].size(); ++pair) {
    EXPECT_EQ(BucketOf(AssignmentHash(salt, absl::StrCat("pair-", pair))),
              vectors["pair_buckets"][pair]);
  }
  for (const nlohmann::json& vector : vectors["slots"]) {
    const SwitchbackSlot slot = SwitchbackAt(salt, vector["unix_seconds"],
                                             vectors["window_seconds"], vectors["washout_seconds"]);
    EXPECT_EQ(slot.window, vector["window"]) << vector;
    EXPECT_EQ(slot.pair, vector["pair"]) << vector;
    EXPECT_EQ(slot.arm, vector["arm"]) << vector;
    EXPECT_EQ(slot.washout, vector["washout"]) << vector;
  }
}

TEST(AssignmentTest, RaisingTheCoverageMovesNobody) {
  const std::vector<uint32_t> weights = {7, 1, 2};
  std::vector<BucketRange> before = ArmRanges(weights, 0);
  for (uint32_t coverage = 1; coverage <= kBuckets; ++coverage) {
    const std::vector<BucketRange> ranges = ArmRanges(weights, coverage);
    for (size_t arm = 0; arm < ranges.size(); ++arm) {
      ASSERT_EQ(ranges[arm].begin, before[arm].begin);
      ASSERT_GE(ranges[arm].end, before[arm].end);
    }
    before = ranges;
  }
  EXPECT_EQ(before, (std::vector<BucketRange>{{0, 7000}, {7000, 8000}, {8000, 10000}}));
}

// Pearson's statistic of a 20 x 20 table of two salts' buckets, in standard deviations.
double Association(const std::string& salt, const std::string& other) {
  constexpr int kCells = 20;
  constexpr int kUnits = 40000;
  std::vector<double> table(kCells * kCells);
  for (int unit = 0; unit < kUnits; ++unit) {
    const std::string name = absl::StrCat("user-", unit);
    const uint32_t row = BucketOf(AssignmentHash(salt, name)) * kCells / kBuckets;
    const uint32_t column = BucketOf(AssignmentHash(other, name)) * kCells / kBuckets;
    ++table[row * kCells + column];
  }
  constexpr double kExpected = static_cast<double>(kUnits) / (kCells * kCells);
  double chi_squared = 0;
  for (const double count : table) {
    chi_squared += (count - kExpected) * (count - kExpected) / kExpected;
  }
  return (chi_squared - (kCells * kCells - 1)) / std::sqrt(2.0 * (kCells * kCells - 1));
}

// Without the finaliser these tables lie 4 to 30 standard deviations from chance.
TEST(AssignmentTest, SimilarSaltsDealUnitsIndependently) {
  for (int i = 0; i < 8; ++i) {
    EXPECT_LT(std::abs(Association(absl::StrCat("exp-", i), absl::StrCat("exp-", i + 1))), 5) << i;
  }
  EXPECT_LT(std::abs(Association(kLayerSalt, "exp-1")), 5);
  EXPECT_GT(Association("exp-1", "exp-1"), 100);
}

}  // namespace
}  // namespace swaa::server
