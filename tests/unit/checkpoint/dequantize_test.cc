// Blocks of quantised tensors as f32.

#include "engine/checkpoint/dequantize.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/checkpoint/mapped_file.h"
#include "tests/unit/checkpoint/test_files.h"

namespace swaa {
namespace {

// The oracle's products and sums may be rounded in another order, once each.
void ExpectNear(float got, float want, const std::string& what) {
  const float tolerance =
      2 * std::numeric_limits<float>::epsilon() * std::max(1e-30f, std::fabs(want));
  EXPECT_LE(std::fabs(got - want), tolerance) << what << ": " << got << " for " << want;
}

TEST(DequantizeTest, AgreesWithTheReferenceOfTheFormat) {
  const std::string golden = ReadWhole("tests/parity/goldens/data/quant_goldens.bin");
  std::set<TensorType> seen;
  size_t at = 0;
  while (at < golden.size()) {
    uint32_t header[3];
    ASSERT_LE(at + sizeof(header), golden.size());
    std::memcpy(header, golden.data() + at, sizeof(header));
    at += sizeof(header);
    const auto [id, num_bytes, num_values] = header;
    ASSERT_LE(at + num_bytes + num_values * 4, golden.size());
    const TensorTypeInfo* info = nullptr;
    for (const TensorTypeInfo& candidate : AllTensorTypes()) {
      if (candidate.gguf_id == id) info = &candidate;
    }
    ASSERT_NE(info, nullptr) << id;
    ASSERT_EQ(num_values / info->block_elements * info->block_bytes, num_bytes) << info->name;
    std::vector<float> want(num_values);
    std::memcpy(want.data(), golden.data() + at + num_bytes, num_values * 4);
    std::vector<float> got(num_values, -1);
    DequantizeRow(info->type, reinterpret_cast<const std::byte*>(golden.data() + at), num_values,
                  got.data());
    for (size_t i = 0; i < num_values; ++i) {
      ExpectNear(got[i], want[i], std::string(info->name) + " value " + std::to_string(i));
    }
    seen.insert(info->type);
    at += num_bytes + num_values * 4;
  }
  // All but F32, which is copied.
  EXPECT_EQ(seen.size() + 1, AllTensorTypes().size());
}

TEST(DequantizeTest, F32IsCopiedFromAnyAddress) {
  const float want[3] = {1.5f, -0.0f, std::numeric_limits<float>::infinity()};
  std::byte bytes[sizeof(want) + 1];
  std::memcpy(bytes + 1, want, sizeof(want));
  float got[3];
  DequantizeRow(TensorType::kF32, bytes + 1, 3, got);
  EXPECT_EQ(std::memcmp(got, want, sizeof(want)), 0);
}

TEST(DequantizeTest, EveryHalfHasItsValue) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const int exponent = static_cast<int>(bits >> 10 & 31);
    const int mantissa = static_cast<int>(bits & 1023);
    double want =
        exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
    if (exponent == 31) want = mantissa == 0 ? std::numeric_limits<double>::infinity() : NAN;
    if (bits >= 32768) want = -want;
    const float got = HalfToFloat(static_cast<uint16_t>(bits));
    if (std::isnan(want)) {
      EXPECT_TRUE(std::isnan(got)) << bits;
    } else {
      ASSERT_EQ(got, want) << bits;
      ASSERT_EQ(std::signbit(got), bits >= 32768) << bits;
    }
  }
}

TEST(DequantizeTest, TheTableIsInTheOrderOfTheEnumeration) {
  for (const TensorTypeInfo& info : AllTensorTypes()) {
    EXPECT_EQ(InfoOf(info.type).name, info.name);
    EXPECT_THAT(TensorTypeNames(), testing::HasSubstr(std::string(info.name)));
  }
}

TEST(MappedFileTest, RefusesWhatIsNoFile) {
  TempFolder folder;
  EXPECT_TRUE(absl::IsNotFound(MappedFile::Open(folder.File("none")).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(MappedFile::Open(folder.path()).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(MappedFile::Open(folder.Write("empty", "")).status()));
  const auto file = MappedFile::Open(folder.Write("some", "text"));
  ASSERT_TRUE(file.ok());
  EXPECT_EQ((*file)->text(), "text");
}

}  // namespace
}  // namespace swaa
