// Shared by the operator tests: every combination of instruction set and dtype, of which those that
// this machine lacks are skipped, and buffers of random numbers.

#ifndef SWAA_TESTS_UNIT_KERNELS_OPERATORS_FIXTURE_H_
#define SWAA_TESTS_UNIT_KERNELS_OPERATORS_FIXTURE_H_

#include <cmath>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/instruction_set.h"
#include "kernels/operators.h"
#include "tests/unit/testing/seed.h"

namespace swaa::kernels {

struct Variant {
  std::string instruction_set;
  std::string dtype;
};

inline std::vector<Variant> Variants() {
  std::vector<Variant> variants;
  for (cpu::InstructionSet set : cpu::AllInstructionSets()) {
    for (const char* dtype : {"auto", "f32"}) {
      variants.push_back({std::string(cpu::Name(set)), dtype});
    }
  }
  return variants;
}

inline bool Supported(const std::string& instruction_set) {
  for (cpu::InstructionSet set : cpu::SupportedInstructionSets()) {
    if (cpu::Name(set) == instruction_set) return true;
  }
  return false;
}

inline std::string NameOf(const ::testing::TestParamInfo<Variant>& info) {
  return info.param.instruction_set + "_" + info.param.dtype;
}

class OperatorsFixture : public ::testing::TestWithParam<Variant> {
 protected:
  void SetUp() override {
    if (!Supported(GetParam().instruction_set)) {
      GTEST_SKIP() << "this processor has no " << GetParam().instruction_set;
    }
    auto operators = CreateOperators(
        {.dtype = GetParam().dtype, .threads = 2, .instruction_set = GetParam().instruction_set});
    ASSERT_TRUE(operators.ok()) << operators.status();
    operators_ = std::move(*operators);
    seed_ = testing::Seed();
    random_.seed(seed_);
    RecordProperty("seed", std::to_string(seed_));
  }
  void TearDown() override {
    if (HasFailure()) std::cerr << "SWAA_TEST_SEED=" << seed_ << std::endl;
  }

  DataType activations() const { return operators_->precision().activations; }

  // Numbers of a normal distribution, rounded as activations are where `round`.
  std::vector<double> Random(int64_t count, double scale = 1, bool round = false) {
    std::normal_distribution<double> normal(0, scale);
    std::vector<double> values(count);
    for (double& value : values) {
      const auto single = static_cast<float>(normal(random_));
      value = round && activations() == DataType::kBf16 ? ToFloat(ToBf16(single)) : single;
    }
    return values;
  }

  std::unique_ptr<Buffer> Allocate(int64_t bytes) {
    auto buffer = operators_->Allocate(bytes, MemoryKind::kWorkspace);
    EXPECT_TRUE(buffer.ok()) << buffer.status();
    return std::move(*buffer);
  }

  // Values in a buffer of `type` with room for `count` elements; those beyond are NaN.
  std::unique_ptr<Buffer> Upload(const std::vector<double>& values, DataType type,
                                 int64_t count = 0) {
    count = std::max<int64_t>(count, values.size());
    auto buffer = Allocate(count * SizeOf(type));
    for (int64_t i = 0; i < count; ++i) {
      const float value =
          i < static_cast<int64_t>(values.size()) ? static_cast<float>(values[i]) : std::nanf("");
      if (type == DataType::kF32) {
        reinterpret_cast<float*>(buffer->data())[i] = value;
      } else {
        reinterpret_cast<Bf16*>(buffer->data())[i] = ToBf16(value);
      }
    }
    return buffer;
  }

  static double Read(const Buffer& buffer, DataType type, int64_t i) {
    if (type == DataType::kF32) return reinterpret_cast<const float*>(buffer.data())[i];
    return ToFloat(reinterpret_cast<const Bf16*>(buffer.data())[i]);
  }

  // The first expected.size() elements are near: within the rounding of `type`, or `absolute`.
  static void ExpectNear(const Buffer& buffer, DataType type, const std::vector<double>& expected,
                         double relative, double absolute, const std::string& what) {
    if (type == DataType::kBf16) relative += 1.0 / 256;
    for (size_t i = 0; i < expected.size(); ++i) {
      const double value = Read(buffer, type, i);
      const double bound = relative * std::abs(expected[i]) + absolute;
      ASSERT_LE(std::abs(value - expected[i]), bound)
          << what << ": element " << i << " is " << value << ", not " << expected[i];
    }
  }

  static float* Floats(const std::unique_ptr<Buffer>& buffer) {
    return reinterpret_cast<float*>(buffer->data());
  }

  std::unique_ptr<Operators> operators_;
  std::mt19937_64 random_;
  uint64_t seed_ = 0;
};

}  // namespace swaa::kernels

#endif  // SWAA_TESTS_UNIT_KERNELS_OPERATORS_FIXTURE_H_
