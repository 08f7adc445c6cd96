// Mixtures of experts on the GPU against double precision: routing at its edges, both kernels of
// products, row counts on both sides of every tile; rows independent of each other; graphs.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iostream>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/cuda/experts/experts.h"
#include "kernels/reference/operators.h"
#include "tests/gpu/device_array.h"
#include "tests/unit/testing/seed.h"

namespace swaa::kernels::cuda {
namespace {

using swaa::testing::DeviceArray;
using swaa::testing::HasProgrammaticLaunch;
using swaa::testing::TestStream;

class ExpertsGpuTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const absl::Status prepared = PrepareExperts();
    ASSERT_TRUE(prepared.ok()) << prepared;
  }

  // Bf16 values, exact in what the reference sees.
  std::vector<Bf16> RandomBf16(int64_t count, double scale) {
    std::normal_distribution<float> normal(0, static_cast<float>(scale));
    std::vector<Bf16> values(count);
    for (Bf16& value : values) value = ToBf16(normal(random_));
    return values;
  }
  static std::vector<double> Doubles(const std::vector<Bf16>& values) {
    std::vector<double> out(values.size());
    std::transform(values.begin(), values.end(), out.begin(), ToFloat);
    return out;
  }

  void Prepare(const ExpertsShape& shape) {
    shape_ = shape;
    values_.clear();
    weights_.clear();
    std::vector<ExpertPointers> pointers;
    for (int32_t e = 0; e < shape.count; ++e) {
      const auto gate_up = RandomBf16(2 * shape.width * shape.hidden, 1 / std::sqrt(shape.hidden));
      const auto down = RandomBf16(shape.hidden * shape.width, 1 / std::sqrt(shape.width));
      values_.push_back(Doubles(gate_up));
      values_.push_back(Doubles(down));
      weights_.emplace_back(gate_up);
      weights_.emplace_back(down);
      pointers.push_back({weights_[2 * e].data(), weights_[2 * e + 1].data()});
    }
    pointers_ = DeviceArray<ExpertPointers>(pointers);
  }

  // [rows, experts]: in each row the same distances, so that rounding changes no choice.
  std::vector<float> Logits(int64_t rows) {
    std::vector<float> logits(rows * shape_.count);
    for (int64_t r = 0; r < rows; ++r) {
      const auto row = logits.begin() + r * shape_.count;
      std::iota(row, row + shape_.count, 0.0f);
      std::shuffle(row, row + shape_.count, random_);
      std::transform(row, row + shape_.count, row, [](float v) { return v / 8 - 1; });
    }
    return logits;
  }

  std::vector<Bf16> Run(const std::vector<float>& logits, const std::vector<Bf16>& x,
                        bool normalize, ExpertsKernel kernel,
                        const std::vector<int32_t>& slots = {}, bool programmatic = false) {
    const auto rows = static_cast<int64_t>(x.size()) / shape_.hidden;
    const DeviceArray<float> device_logits(logits);
    const DeviceArray<Bf16> device_x(x), out(x.size() + kGuard);
    const DeviceArray<int32_t> device_slots(slots);
    const int64_t scratch_bytes = ExpertsScratchBytes(shape_, rows);
    // Whatever the scratch holds; past its end nothing is written.
    const DeviceArray<uint8_t> scratch(scratch_bytes + kGuard);
    RunExperts({.shape = shape_,
                .normalize = normalize,
                .experts = pointers_.data(),
                .logits = device_logits.data(),
                .slots = slots.empty() ? nullptr : device_slots.data(),
                .x = device_x.data(),
                .scratch = reinterpret_cast<std::byte*>(scratch.data()),
                .out = out.data(),
                .rows = rows},
               {.stream = stream_, .programmatic = programmatic && HasProgrammaticLaunch()},
               kernel);
    const std::vector<uint8_t> used = scratch.Get();
    EXPECT_TRUE(std::all_of(used.end() - kGuard, used.end(), [](uint8_t b) { return b == 0xff; }));
    std::vector<Bf16> result = out.Get();
    EXPECT_TRUE(
        std::all_of(result.end() - kGuard, result.end(), [](Bf16 v) { return v.bits == 0xffff; }));
    result.resize(x.size());
    return result;
  }

  void Check(const std::vector<float>& logits, bool normalize, ExpertsKernel kernel,
             const std::vector<int32_t>& slots = {}) {
    const auto rows = static_cast<int64_t>(logits.size()) / shape_.count, hidden = shape_.hidden;
    const auto x = RandomBf16(rows * hidden, 1);
    const auto shares = reference::ExpertShares(std::vector<double>(logits.begin(), logits.end()),
                                                shape_.count, shape_.experts_per_row, normalize);
    std::vector<reference::Expert> experts;
    for (int32_t e = 0; e < shape_.count; ++e) {
      experts.push_back({values_[2 * e], values_[2 * e + 1]});
    }
    const auto expected = reference::Experts(Doubles(x), shares, experts, hidden);
    const std::vector<Bf16> out = Run(logits, x, normalize, kernel, slots, rows % 2 == 0);
    for (int64_t r = 0; r < rows; ++r) {
      const bool dead = !slots.empty() && slots[r] < 0;
      double error = 0, norm = 0;
      for (int64_t i = r * hidden; i < (r + 1) * hidden; ++i) {
        const double difference = ToFloat(out[i]) - (dead ? 0 : expected[i]);
        error += difference * difference;
        norm += expected[i] * expected[i];
      }
      // What gate * up, each expert's result and the sum lose as bf16; a dead row is exactly zero.
      ASSERT_LE(std::sqrt(error / norm), dead ? 0 : 1e-2)
          << "row " << r << " of " << rows << ", " << shape_.experts_per_row << " of "
          << shape_.count << " experts, hidden " << hidden << ", width " << shape_.width
          << ", kernel " << static_cast<int>(kernel);
    }
  }

  static constexpr int64_t kGuard = 64;
  const uint32_t seed_ = swaa::testing::Seed();
  std::mt19937 random_{seed_};
  ExpertsShape shape_;
  std::vector<std::vector<double>> values_;  // gate_up, down of each expert
  std::vector<DeviceArray<Bf16>> weights_;
  DeviceArray<ExpertPointers> pointers_;
  TestStream stream_;
};

constexpr ExpertsKernel kKernels[] = {ExpertsKernel::kStreamed, ExpertsKernel::kTiled};

TEST_F(ExpertsGpuTest, MatchTheReferenceForAnyShapeAndRowCount) {
  SCOPED_TRACE(seed_);
  const struct {
    ExpertsShape shape;
    std::vector<int64_t> rows;
  } cases[] = {
      {{.hidden = 64, .width = 48, .count = 8, .experts_per_row = 2}, {1, 2, 9, 65, 300}},
      {{.hidden = 40, .width = 24, .count = 5, .experts_per_row = 5}, {1, 17, 260}},
      {{.hidden = 96, .width = 72, .count = 24, .experts_per_row = 7}, {3, 20, 200}},
      {{.hidden = 16, .width = 8, .count = 1, .experts_per_row = 1}, {5, 129, 2000}},
      {{.hidden = 328, .width = 200, .count = 128, .experts_per_row = 8}, {1, 33, 129}},
      {{.hidden = 8, .width = 8, .count = 512, .experts_per_row = 32}, {1, 32, 40}},
  };
  for (const auto& [shape, row_counts] : cases) {
    Prepare(shape);
    for (const int64_t rows : row_counts) {
      for (const ExpertsKernel kernel : kKernels) {
        Check(Logits(rows), /*normalize=*/rows % 3 != 0, kernel);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_F(ExpertsGpuTest, AllRowsMayGoToTheSameExperts) {
  SCOPED_TRACE(seed_);
  Prepare({.hidden = 64, .width = 48, .count = 16, .experts_per_row = 3});
  for (const int64_t rows : {5, 16, 130, 1000}) {
    std::vector<float> logits = Logits(rows);
    for (int64_t r = 0; r < rows; ++r) {
      std::copy_n(logits.begin(), shape_.count, logits.begin() + r * shape_.count);
    }
    for (const ExpertsKernel kernel : kKernels) Check(logits, true, kernel);
  }
}

TEST_F(ExpertsGpuTest, OthersThanTheChosenAreNotTouched) {
  SCOPED_TRACE(seed_);
  Prepare({.hidden = 64, .width = 48, .count = 8, .experts_per_row = 2});
  // Of equal logits the lower experts' come first: here 3, then 0; zeros of both signs are equal.
  for (const int64_t rows : {4, 700}) {
    std::vector<float> logits(rows * 8, 0.0f);
    for (int64_t r = 0; r < rows; ++r) {
      logits[r * 8] = -0.0f;
      logits[r * 8 + 3] = 2;
    }
    auto pointers = pointers_.Get();
    for (int32_t e = 0; e < 8; ++e) {
      if (e != 0 && e != 3) pointers[e] = {};
    }
    pointers_.Set(pointers);
    for (const ExpertsKernel kernel : kKernels) Check(logits, false, kernel);
  }
}

TEST_F(ExpertsGpuTest, DeadRowsGoToNoExpert) {
  SCOPED_TRACE(seed_);
  Prepare({.hidden = 64, .width = 48, .count = 8, .experts_per_row = 2});
  for (const int64_t rows : {8, 600}) {
    std::vector<int32_t> slots(rows);
    for (int32_t& slot : slots) slot = static_cast<int32_t>(random_() % 3) - 1;
    for (const ExpertsKernel kernel : kKernels) Check(Logits(rows), true, kernel, slots);
  }
}

// Not numbers, of whatever kind: the row is lost, others are not, and nothing is touched beyond.
TEST_F(ExpertsGpuTest, LogitsThatAreNoNumbersSpoilTheirRowAlone) {
  SCOPED_TRACE(seed_);
  Prepare({.hidden = 64, .width = 48, .count = 8, .experts_per_row = 3});
  std::vector<float> logits = Logits(3);
  const auto x = RandomBf16(3 * 64, 1);
  const auto clean = Run(logits, x, true, ExpertsKernel::kAutomatic);
  for (const float bad : {std::nanf(""), -std::nanf(""), INFINITY, -INFINITY}) {
    std::fill_n(logits.begin() + 8, 8, bad);
    const auto out = Run(logits, x, true, ExpertsKernel::kAutomatic);
    for (int64_t i = 0; i < 64; ++i) {
      ASSERT_EQ(out[i].bits, clean[i].bits);
      ASSERT_EQ(out[2 * 64 + i].bits, clean[2 * 64 + i].bits);
    }
  }
}

TEST_F(ExpertsGpuTest, ARowsResultDoesNotDependOnItsCompany) {
  SCOPED_TRACE(seed_);
  Prepare({.hidden = 256, .width = 104, .count = 16, .experts_per_row = 4});
  for (const ExpertsKernel kernel : kKernels) {
    const auto x = RandomBf16(300 * 256, 1);
    const auto logits = Logits(300);
    const auto all = Run(logits, x, true, kernel);
    for (const int64_t row : {0, 7, 150, 299}) {
      const std::vector<Bf16> own(x.begin() + row * 256, x.begin() + (row + 1) * 256);
      const std::vector<float> own_logits(logits.begin() + row * 16,
                                          logits.begin() + (row + 1) * 16);
      const auto alone = Run(own_logits, own, true, kernel);
      for (int64_t i = 0; i < 256; ++i) ASSERT_EQ(alone[i].bits, all[row * 256 + i].bits) << row;
    }
  }
}

TEST_F(ExpertsGpuTest, AGraphServesWhateverItsRowsAre) {
  SCOPED_TRACE(seed_);
  Prepare({.hidden = 64, .width = 48, .count = 8, .experts_per_row = 2});
  constexpr int64_t kRows = 32;
  DeviceArray<float> logits(kRows * 8);
  DeviceArray<Bf16> x(kRows * 64), out(kRows * 64);
  const DeviceArray<uint8_t> scratch(ExpertsScratchBytes(shape_, kRows));
  cudaGraph_t graph = nullptr;
  SWAA_CUDA_CHECK(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
  RunExperts({.shape = shape_,
              .normalize = true,
              .experts = pointers_.data(),
              .logits = logits.data(),
              .x = x.data(),
              .scratch = reinterpret_cast<std::byte*>(scratch.data()),
              .out = out.data(),
              .rows = kRows},
             {.stream = stream_, .programmatic = HasProgrammaticLaunch()});
  SWAA_CUDA_CHECK(cudaStreamEndCapture(stream_, &graph));
  cudaGraphExec_t executable = nullptr;
  SWAA_CUDA_CHECK(cudaGraphInstantiate(&executable, graph, 0));
  for (int round = 0; round < 3; ++round) {
    const auto values = RandomBf16(kRows * 64, 1);
    const auto row_logits = Logits(kRows);
    logits.Set(row_logits);
    x.Set(values);
    SWAA_CUDA_CHECK(cudaGraphLaunch(executable, stream_));
    const auto replayed = out.Get();
    const auto launched = Run(row_logits, values, true, ExpertsKernel::kAutomatic);
    for (size_t i = 0; i < launched.size(); ++i) ASSERT_EQ(replayed[i].bits, launched[i].bits);
  }
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
}

TEST_F(ExpertsGpuTest, ShapesThatAreNotServedAreNamed) {
  EXPECT_TRUE(
      CheckExpertsShape({.hidden = 2048, .width = 768, .count = 128, .experts_per_row = 8}).ok());
  for (const ExpertsShape& shape :
       {ExpertsShape{.hidden = 12, .width = 8, .count = 8, .experts_per_row = 2},
        ExpertsShape{.hidden = 8, .width = 4, .count = 8, .experts_per_row = 2},
        ExpertsShape{.hidden = 8, .width = 8, .count = 513, .experts_per_row = 2},
        ExpertsShape{.hidden = 8, .width = 8, .count = 8, .experts_per_row = 9}}) {
    EXPECT_EQ(CheckExpertsShape(shape).code(), absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace swaa::kernels::cuda
