// Affine-quantised weights: what is recognised as one, what is not, and that packing loses nothing;
// over made-up levels and over blocks of every quantised type.

#include "kernels/cpu/affine_weight.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <iostream>
#include <limits>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/checkpoint/dequantize.h"
#include "gtest/gtest.h"
#include "tests/unit/testing/seed.h"

namespace swaa::kernels::cpu {
namespace {

constexpr double kTolerance = 0x1p-21;

class AffineWeightTest : public ::testing::Test {
 protected:
  void SetUp() override {
    seed_ = testing::Seed();
    random_.seed(seed_);
  }
  void TearDown() override {
    if (HasFailure()) std::cerr << "SWAA_TEST_SEED=" << seed_ << std::endl;
  }

  int Integer(int first, int last) {
    return std::uniform_int_distribution<int>(first, last)(random_);
  }
  float Real(float first, float last) {
    return std::uniform_real_distribution<float>(first, last)(random_);
  }

  uint64_t seed_ = 0;
  std::mt19937_64 random_;
};

double LargestOf(std::span<const float> values) {
  double largest = 0;
  for (float value : values) largest = std::max<double>(largest, std::abs(value));
  return largest;
}

// The group is found and holds every value.
void ExpectFound(std::span<const float> values, int max_level, const std::string& what) {
  const std::optional<AffineGroup> group = FindAffineGroup(values, max_level);
  ASSERT_TRUE(group.has_value()) << what;
  EXPECT_GE(group->step, 0) << what;
  for (size_t i = 0; i < values.size(); ++i) {
    ASSERT_LE(group->levels[i], max_level) << what;
    const double value =
        static_cast<double>(group->min) + static_cast<double>(group->step) * group->levels[i];
    ASSERT_LE(std::abs(value - values[i]), 2 * kTolerance * LargestOf(values))
        << what << ": value " << i << " is " << values[i];
  }
}

TEST_F(AffineWeightTest, GroupsOfEveryLevelCountAndLength) {
  for (int levels = 1; levels <= 255; ++levels) {
    for (int count = 1; count <= kMaxGroupInputs; ++count) {
      const double step = std::ldexp(Real(0.5f, 1), Integer(-40, 20)) * (Integer(0, 1) ? 1 : -1);
      const double min = step * Real(-300, 300);
      std::vector<float> values(count);
      for (float& value : values) value = static_cast<float>(min + step * Integer(0, levels));
      ExpectFound(values, 255, absl::StrCat(levels, " levels, ", count, " values"));
      if (levels <= 15) ExpectFound(values, 15, absl::StrCat(levels, " of 15 levels"));
      if (HasFatalFailure()) return;
    }
  }
}

void ExpectF16(const std::vector<float>& values, int max_level, const std::string& what) {
  const std::optional<AffineGroup> affine = FindAffineGroup(values, max_level);
  ASSERT_TRUE(affine.has_value()) << what;
  const std::optional<AffineGroup> half = FindF16Group(values, *affine, max_level);
  ASSERT_TRUE(half.has_value()) << what;
  for (float head : {half->min, half->step}) {
    int exponent = 0;
    // 11 bits, or whole steps of the smallest.
    const float scaled =
        std::abs(head) < 0x1p-14f ? head * 0x1p24f : std::frexp(head, &exponent) * 2048;
    EXPECT_EQ(scaled, std::nearbyint(scaled)) << what;
    EXPECT_LE(std::abs(head), 65504.0f) << what;
  }
  for (size_t i = 0; i < values.size(); ++i) {
    ASSERT_LE(half->levels[i], max_level) << what;
    ASSERT_NEAR(half->min + static_cast<double>(half->step) * half->levels[i], values[i],
                2 * kTolerance * LargestOf(values))
        << what << ": value " << i;
  }
}

// As quantised files have them: the values show neither which level is the lowest nor the sign of
// the step, and levels may be missing.
TEST_F(AffineWeightTest, F16MinAndStepAreFoundAgain) {
  for (int repeat = 0; repeat < 3000; ++repeat) {
    const auto f16 = [&] {
      return std::ldexp(static_cast<float>(Integer(1024, 2047)), Integer(-24, -8)) *
             (Integer(0, 1) ? 1 : -1);
    };
    const float step = f16(), min = f16();
    const int lowest = Integer(0, 7), highest = Integer(8, 15);
    for (int max_level : {15, 255}) {
      const int scale = max_level / 15;
      std::vector<float> values(32);
      for (float& value : values) {
        value = step * static_cast<float>(Integer(lowest, highest) * scale) + min;
      }
      ExpectF16(values, max_level, absl::StrCat(step, " * level + ", min));
      // Symmetric ones have no min of their own.
      for (float& value : values) {
        value = step * static_cast<float>(Integer(lowest, highest) * scale - (max_level + 1) / 2);
      }
      ExpectF16(values, max_level, absl::StrCat(step, " * signed level"));
      if (HasFatalFailure()) return;
    }
  }
}

TEST_F(AffineWeightTest, OtherMinsAndStepsAreNotF16) {
  std::vector<float> values(32);
  for (const auto& [min, step] : std::vector<std::pair<float, float>>{
           {0.1234567f, 0.25f}, {0.25f, 0.1234567f}, {1e6f, 1.0f}, {0.0f, 1e-9f}, {0.0f, 1e5f}}) {
    for (int i = 0; i < 32; ++i) values[i] = min + step * static_cast<float>(i % 16);
    const std::optional<AffineGroup> affine = FindAffineGroup(values, 15);
    ASSERT_TRUE(affine.has_value()) << min << ", " << step;
    EXPECT_FALSE(FindF16Group(values, *affine, 15).has_value()) << min << ", " << step;
  }
}

TEST_F(AffineWeightTest, GapsMayHideTheStep) {
  for (const auto& levels : std::vector<std::vector<int>>{
           {0, 2, 14}, {0, 6, 15}, {6, 10, 15, 0}, {0, 7, 15, 8}, {3, 5, 11}, {0, 15}}) {
    std::vector<float> values;
    for (int i = 0; i < 32; ++i) {
      values.push_back(-0.37f + 0.011f * static_cast<float>(levels[i % levels.size()]));
    }
    ExpectFound(values, 15, "gaps");
  }
  // No common step but the smallest: 15 and 255 are coprime to what they are mixed with.
  ExpectFound(std::vector<float>{0, 100, 255, 150}, 255, "multiples of five");
  ExpectFound(std::vector<float>{0, 127, 255}, 255, "no common divisor");
  EXPECT_FALSE(FindAffineGroup(std::vector<float>{0, 127, 255}, 254).has_value());
}

TEST_F(AffineWeightTest, EqualValuesAreOneLevel) {
  for (float value : {0.0f, -0.0f, 1.0f, -3e-5f, 1e-42f, std::numeric_limits<float>::max()}) {
    const std::vector<float> values(32, value);
    const std::optional<AffineGroup> group = FindAffineGroup(values, 15);
    ASSERT_TRUE(group.has_value()) << value;
    EXPECT_EQ(group->min, value);
    EXPECT_EQ(group->step, 0);
    EXPECT_EQ(std::count(group->levels.begin(), group->levels.end(), 0), kMaxGroupInputs);
  }
}

TEST_F(AffineWeightTest, OneLevelTooMany) {
  for (int max_level : {1, 2, 14, 15, 31, 63, 254}) {
    std::vector<float> values;
    for (int level = 0; level <= max_level; level += (max_level + 1) / 16 + 1) {
      values.push_back(0.25f * static_cast<float>(level));
    }
    values.push_back(0.25f * static_cast<float>(max_level + 1));
    values.push_back(0.25f);
    ASSERT_LE(values.size(), kMaxGroupInputs);
    ExpectFound(values, max_level + 1, "exactly as many");
    EXPECT_FALSE(FindAffineGroup(values, max_level).has_value()) << max_level;
  }
}

TEST_F(AffineWeightTest, NoiseIsNotAffine) {
  std::normal_distribution<float> normal;
  for (int repeat = 0; repeat < 1000; ++repeat) {
    std::vector<float> values(16 + Integer(0, 16));
    for (float& value : values) value = normal(random_);
    EXPECT_FALSE(FindAffineGroup(values, 255).has_value());
    for (float& value : values) value = ToFloat(ToBf16(value));
    EXPECT_FALSE(FindAffineGroup(values, 255).has_value());
  }
}

// One value is moved off its level by more than f32 rounds.
TEST_F(AffineWeightTest, OneValueOffItsLevel) {
  for (int repeat = 0; repeat < 1000; ++repeat) {
    std::vector<float> values(32);
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 16) - 4;
    const int moved = Integer(0, 31);
    values[moved] += Real(0, 1) < 0.5f ? 1e-4f : -1e-4f;
    EXPECT_FALSE(FindAffineGroup(values, 255).has_value()) << "value " << moved;
  }
}

TEST_F(AffineWeightTest, NotFiniteIsNotAffine) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (float value : {infinity, -infinity, std::nanf("")}) {
    for (int position = 0; position < 32; ++position) {
      for (float rest : {0.0f, 1.0f}) {
        std::vector<float> values(32);
        for (int i = 0; i < 32; ++i) values[i] = rest * static_cast<float>(i % 4);
        values[position] = value;
        EXPECT_FALSE(FindAffineGroup(values, 15).has_value()) << value << " at " << position;
      }
    }
    EXPECT_FALSE(FindAffineGroup(std::vector<float>(32, value), 15).has_value()) << value;
  }
}

TEST_F(AffineWeightTest, HugeAndTinyValues) {
  const float max = std::numeric_limits<float>::max();
  std::vector<float> values(32);
  for (int i = 0; i < 32; ++i) values[i] = max / 16 * static_cast<float>(i % 16);
  ExpectFound(values, 15, "up to the largest number");
  for (int i = 0; i < 32; ++i) values[i] = i % 2 == 0 ? max : -max;
  EXPECT_FALSE(FindAffineGroup(values, 15).has_value()) << "the range is no number";
  // Subnormal steps may be refused, never be wrong.
  for (int exponent = -149; exponent <= -110; ++exponent) {
    for (int i = 0; i < 32; ++i) values[i] = std::ldexp(static_cast<float>(i % 16), exponent);
    if (FindAffineGroup(values, 15).has_value())
      ExpectFound(values, 15, absl::StrCat("2^", exponent));
    EXPECT_TRUE(exponent < -120 || FindAffineGroup(values, 15).has_value()) << "2^" << exponent;
  }
}

RowReader ReaderOf(const std::vector<float>& values, int64_t in_features) {
  return [&values, in_features](int64_t first_row, int64_t count, float* out) {
    std::copy_n(values.begin() + first_row * in_features, count * in_features, out);
  };
}

float FromHalf(uint16_t bits) {
  const int exponent = bits >> 10 & 31;
  const int mantissa = bits & 1023;
  const float magnitude = exponent == 0
                              ? std::ldexp(static_cast<float>(mantissa), -24)
                              : std::ldexp(static_cast<float>(1024 + mantissa), exponent - 25);
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

// Min (0) or step (1) of a column of a record.
double HeadOf(const AffineFormat& format, const std::byte* record, int64_t index) {
  if (format.f16) {
    uint16_t half;
    std::memcpy(&half, record + 2 * index, 2);
    return FromHalf(half);
  }
  float value;
  std::memcpy(&value, record + 4 * index, 4);
  return value;
}

// A packed weight's value, by the layout that skinny_affine_product.h describes.
double ValueOf(const AffineWeight& weight, int64_t output, int64_t input) {
  const AffineFormat& format = weight.format;
  const int64_t level_bytes = format.group_inputs * format.level_bits / 8 * kAffineColumns;
  const int64_t head_bytes = 2 * kAffineColumns * (format.f16 ? 2 : 4);
  const int64_t record = output / kAffineColumns * weight.groups + input / format.group_inputs;
  const std::byte* at = weight.records.get() + record * (head_bytes + level_bytes);
  const int64_t column = output % kAffineColumns;
  const int64_t inside = input % format.group_inputs;
  const double min = HeadOf(format, at, column);
  const double step = HeadOf(format, at, kAffineColumns + column);
  at += head_bytes;
  int level = 0;
  if (format.level_bits == 8) {
    level = std::to_integer<int>(at[(inside / 2 * kAffineColumns + column) * 2 + inside % 2]);
  } else {
    uint16_t word;
    std::memcpy(&word, at + ((inside / 8 * kAffineColumns + column) * 2 + inside % 2) * 2, 2);
    level = word >> (4 * (inside % 8 / 2)) & 15;
  }
  return min + step * level;
}

std::optional<AffineWeight> Pack(const std::vector<float>& values, int64_t in_features) {
  SliceAllocator memory;
  auto packed = PackAffineWeight(static_cast<int64_t>(values.size()) / in_features, in_features,
                                 ReaderOf(values, in_features), memory);
  EXPECT_TRUE(packed.ok()) << packed.status();
  return std::move(*packed);
}

void ExpectPacked(const std::vector<float>& values, int64_t in_features, const AffineFormat& format,
                  const std::string& what) {
  const std::optional<AffineWeight> weight = Pack(values, in_features);
  ASSERT_TRUE(weight.has_value()) << what;
  EXPECT_EQ(weight->format.level_bits, format.level_bits) << what;
  EXPECT_EQ(weight->format.group_inputs, format.group_inputs) << what;
  EXPECT_EQ(weight->format.f16, format.f16) << what;
  const double bound = 2 * kTolerance * LargestOf(values);
  for (size_t i = 0; i < values.size(); ++i) {
    const auto output = static_cast<int64_t>(i) / in_features;
    ASSERT_NEAR(ValueOf(*weight, output, static_cast<int64_t>(i) % in_features), values[i], bound)
        << what << ": value " << i;
  }
}

// Blocks of random bits, their scales small halves.
std::vector<std::byte> RandomBlocks(const TensorTypeInfo& info, int64_t blocks,
                                    std::mt19937_64& random) {
  std::vector<std::byte> bytes(blocks * info.block_bytes);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  for (int64_t b = 0; b < blocks; ++b) {
    std::byte* block = bytes.data() + b * info.block_bytes;
    const int first = info.type == TensorType::kQ6_K ? 208 : 0;
    const bool two = info.type == TensorType::kQ4_1 || info.type == TensorType::kQ5_1 ||
                     info.type == TensorType::kQ4_K || info.type == TensorType::kQ5_K;
    for (int at = first; at < first + (two ? 4 : 2); at += 2) {
      block[at + 1] = static_cast<std::byte>(0x20 | (random() & 0x83));  // 2^-7 .. 2^-6, any sign
    }
  }
  return bytes;
}

TEST_F(AffineWeightTest, BlocksOfEveryTensorType) {
  constexpr int64_t kIn = 512, kOut = 41;
  for (const TensorTypeInfo& info : AllTensorTypes()) {
    const int64_t blocks = kIn / info.block_elements * kOut;
    std::vector<float> values(kIn * kOut);
    if (info.block_elements == 1) {
      std::normal_distribution<float> normal;
      for (float& value : values) value = ToFloat(ToBf16(normal(random_)));
      EXPECT_FALSE(Pack(values, kIn).has_value()) << info.name;
      continue;
    }
    info.dequantize(RandomBlocks(info, blocks, random_).data(), blocks, values.data());
    const bool nibbles = info.type == TensorType::kQ4_0 || info.type == TensorType::kQ4_1 ||
                         info.type == TensorType::kQ4_K;
    // Scales of scales take more bits than f16 has.
    const bool f16 = info.block_elements == 32;
    const AffineFormat format{nibbles ? 4 : 8, info.type == TensorType::kQ6_K ? 16 : 32, f16};
    ExpectPacked(values, kIn, format, std::string(info.name));
    if (HasFatalFailure()) return;
  }
}

// Parts of several types under one another, as the rows of queries, keys and values: the smallest
// format that holds them all.
TEST_F(AffineWeightTest, OneGroupDecidesTheFormat) {
  constexpr int64_t kIn = 96, kOut = 50;
  std::vector<float> values(kIn * kOut);
  for (float& value : values) value = static_cast<float>(Integer(0, 15)) * 0.125f - 1;
  ExpectPacked(values, kIn, {4, 32, true}, "nibbles");
  values[48 * kIn + 33] = 200 * 0.125f;
  ExpectPacked(values, kIn, {8, 32, true}, "a wide group");
  for (int i = 0; i < 16; ++i) values[49 * kIn + 64 + i] = 0.001f * static_cast<float>(i);
  ExpectPacked(values, kIn, {8, 16}, "a group of two steps");
  values[49 * kIn + 81] = 0.9f;
  values[49 * kIn + 82] = 0.31234f;
  values[49 * kIn + 83] = -0.7531234f;
  EXPECT_FALSE(Pack(values, kIn).has_value());
}

TEST_F(AffineWeightTest, GivesUpAtTheFirstGroupThatIsNotAffine) {
  constexpr int64_t kIn = 64, kOut = 16000;
  std::atomic<int64_t> read = 0;
  SliceAllocator memory;
  const auto packed = PackAffineWeight(
      kOut, kIn,
      [&read](int64_t first_row, int64_t count, float* out) {
        read += count;
        for (int64_t i = 0; i < count * kIn; ++i)
          out[i] = std::sin(static_cast<float>(first_row + i));
      },
      memory);
  ASSERT_TRUE(packed.ok()) << packed.status();
  EXPECT_FALSE(packed->has_value());
  EXPECT_LT(read, kOut / 2);
}

TEST_F(AffineWeightTest, OddShapesAndPadding) {
  for (int64_t in : {1, 7, 16, 31, 32, 33, 63, 100}) {
    for (int64_t out : {1, 15, 16, 17, 40}) {
      std::vector<float> values(in * out);
      for (float& value : values) value = static_cast<float>(Integer(-4, 4)) * 0.37f;
      values[0] = 0.37f;  // no f16 number
      ExpectPacked(values, in, {4, 32}, absl::StrCat(in, " x ", out));
      if (HasFatalFailure()) return;
      const std::optional<AffineWeight> weight = Pack(values, in);
      ASSERT_EQ(weight->groups, (in + 31) / 32);
      ASSERT_EQ(weight->bytes, (out + 15) / 16 * weight->groups * 384);
      for (int64_t o = out; o < (out + 15) / 16 * 16; ++o) {
        for (int64_t i = 0; i < weight->groups * 32; ++i) ASSERT_EQ(ValueOf(*weight, o, i), 0);
      }
    }
  }
}

}  // namespace
}  // namespace swaa::kernels::cpu
