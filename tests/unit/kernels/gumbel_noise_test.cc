// Tests: the noise is what it says, and nothing is to be seen of how it is made.

#include "kernels/gumbel_noise.h"

#include <cmath>
#include <cstdint>
#include <random>
#include <set>
#include <vector>

#include <gtest/gtest.h>

namespace swaa::kernels {
namespace {

double ExactNoise(uint32_t bits) {
  const double w = (bits + 0.5) * 0x1.0p-32;
  return -std::log(-std::log1p(-w));
}

TEST(GumbelNoiseTest, AgreesWithDoublePrecision) {
  std::mt19937 random(1);
  std::vector<uint32_t> all = {0, 1, 2, 3, 1u << 31, ~0u, ~0u - 1, ~(1u << 31), 0x4afb0ccd};
  for (int i = 0; i < 200000; ++i) all.push_back(random() >> (random() % 32));
  for (int i = 0; i < 200000; ++i) all.push_back(~(random() >> (random() % 32)));
  for (const uint32_t bits : all) {
    const double want = ExactNoise(bits);
    ASSERT_NEAR(GumbelNoise(bits), want, 4e-7 * std::max(1.0, std::fabs(want))) << bits;
    ASSERT_LT(GumbelNoise(bits), kMaxGumbelNoise) << bits;
    ASSERT_GT(GumbelNoise(bits), kMinGumbelNoise) << bits;
  }
}

TEST(GumbelNoiseTest, LogAndExpAgreeWithDoublePrecision) {
  std::mt19937 random(2);
  std::uniform_real_distribution<float> exponent(-80, 80), depth(-80, 0);
  for (int i = 0; i < 200000; ++i) {
    const float x = std::exp(exponent(random));
    const double log = std::log(double{x});
    ASSERT_NEAR(exact::Log(x), log, 2e-7 * std::max(0.5, std::fabs(log))) << x;
    const float y = depth(random);
    ASSERT_NEAR(exact::Exp(y) / std::exp(double{y}), 1, 3e-7) << y;
  }
  EXPECT_EQ(exact::Exp(0), 1);
  EXPECT_EQ(exact::Log(1), 0);
}

// Uniform bits over tokens, over output indices and over seeds: 256 cells, each way.
TEST(GumbelNoiseTest, BitsAreUniformAlongEveryArgument) {
  constexpr int kDraws = 1 << 18, kCells = 256;
  for (int shift : {0, 12, 24}) {
    for (int argument = 0; argument < 3; ++argument) {
      std::vector<int> counts(kCells, 0);
      for (uint32_t i = 0; i < kDraws; ++i) {
        const GumbelKey key = MakeGumbelKey(argument == 0 ? i : 9, argument == 1 ? i : 4);
        const uint32_t bits = GumbelBits(key, argument == 2 ? i : 1234);
        ++counts[(bits >> shift) % kCells];
      }
      double statistic = 0;
      const double expected = double{kDraws} / kCells;
      for (const int count : counts)
        statistic += (count - expected) * (count - expected) / expected;
      // 255 degrees of freedom: mean 255, deviation 22.6.
      EXPECT_LT(statistic, 255 + 5 * 22.6) << "shift " << shift << " argument " << argument;
      EXPECT_GT(statistic, 255 - 5 * 22.6) << "shift " << shift << " argument " << argument;
    }
  }
}

// Neighbouring tokens, outputs and seeds have nothing in common.
TEST(GumbelNoiseTest, NeighboursAreUncorrelated) {
  constexpr int kPairs = 1 << 18;
  const auto uniform = [](uint64_t seed, uint64_t t, uint32_t token) {
    return GumbelBits(MakeGumbelKey(seed, t), token) * 0x1.0p-32 - 0.5;
  };
  for (int neighbour = 0; neighbour < 4; ++neighbour) {
    double sum = 0;
    for (uint32_t i = 0; i < kPairs; ++i) {
      const uint64_t seed = i / 4096, t = i / 64 % 64;
      const uint32_t token = i % 64;
      sum += uniform(seed, t, token) * uniform(seed + (neighbour == 0), t + (neighbour == 1),
                                               token + (neighbour == 2) + 64 * (neighbour == 3));
    }
    // Products have deviation 1/12.
    EXPECT_LT(std::fabs(sum) / kPairs, 5 / 12.0 / std::sqrt(kPairs)) << neighbour;
  }
}

TEST(GumbelNoiseTest, TokensOfOneDrawHaveDistinctBits) {
  const GumbelKey key = MakeGumbelKey(7, 3);
  std::set<uint32_t> seen;
  for (uint32_t token = 0; token < 100000; ++token) seen.insert(GumbelBits(key, token));
  EXPECT_EQ(seen.size(), 100000u);
}

// Any change of these numbers changes what every seed draws.
TEST(GumbelNoiseTest, IsTheSameForEver) {
  const GumbelKey key = MakeGumbelKey(42, 7);
  EXPECT_EQ(key.first, 3427297166u);
  EXPECT_EQ(key.second, 3155600340u);
  EXPECT_EQ(GumbelBits(key, 1000), 613351005u);
}

}  // namespace
}  // namespace swaa::kernels
