// Products of adapters on the GPU against double precision: ranks, parts and row counts on both
// sides of every block, rows without an adapter, memory that comes and goes.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/lora/adapter_memory.h"
#include "kernels/cuda/lora/lora.h"
#include "kernels/cuda/lora/lora_weight.h"
#include "kernels/reference/operators.h"
#include "tests/gpu/device_array.h"
#include "tests/unit/testing/seed.h"

namespace swaa::kernels::cuda {
namespace {

using swaa::testing::DeviceArray;
using swaa::testing::HasProgrammaticLaunch;
using swaa::testing::TestStream;

// A part with its values, exact in bf16.
struct Part {
  int64_t first_output;
  int64_t outputs;
  int64_t rank;
  std::vector<double> down;
  std::vector<double> up;
};

RowReader ReaderOf(const std::vector<double>& values, int64_t columns) {
  return [&values, columns](int64_t first_row, int64_t count, float* out) {
    std::copy_n(values.begin() + first_row * columns, count * columns, out);
  };
}

class LoraGpuTest : public ::testing::Test {
 protected:
  std::vector<double> Random(int64_t count, double scale) {
    std::normal_distribution<float> normal(0, static_cast<float>(scale));
    std::vector<double> values(count);
    for (double& value : values) value = ToFloat(ToBf16(normal(random_)));
    return values;
  }
  static std::vector<Bf16> ToBf16s(const std::vector<double>& values) {
    std::vector<Bf16> out(values.size());
    std::transform(values.begin(), values.end(), out.begin(),
                   [](double v) { return ToBf16(static_cast<float>(v)); });
    return out;
  }

  Part RandomPart(int64_t in, int64_t first_output, int64_t outputs, int64_t rank) {
    return {first_output, outputs, rank, Random(rank * in, 1 / std::sqrt(in)),
            Random(outputs * rank, 1 / std::sqrt(rank))};
  }

  static LoraSpec SpecOf(const std::vector<Part>& parts, int64_t in) {
    LoraSpec spec{.in_features = in};
    for (const Part& part : parts) {
      spec.parts.push_back({.first_output = part.first_output,
                            .outputs = part.outputs,
                            .rank = part.rank,
                            .down = ReaderOf(part.down, in),
                            .up = ReaderOf(part.up, part.rank)});
    }
    return spec;
  }

  // Rows grouped as a step's are; -1: none.
  struct Grouped {
    std::vector<LoraTile> tiles;
    std::vector<int32_t> rows;
    int32_t adapted = 0;  // tiles
  };
  static Grouped Group(const std::vector<int32_t>& adapters, int32_t count) {
    Grouped grouped;
    for (int32_t i = 0; i <= count; ++i) {
      const int32_t adapter = i < count ? i : -1;
      const auto first = static_cast<int32_t>(grouped.rows.size());
      for (size_t row = 0; row < adapters.size(); ++row) {
        if (adapters[row] == adapter) grouped.rows.push_back(static_cast<int32_t>(row));
      }
      const auto end = static_cast<int32_t>(grouped.rows.size());
      for (int32_t at = first; at < end; at += kLoraTileRows) {
        grouped.tiles.push_back({adapter, at, std::min(kLoraTileRows, end - at), 0});
      }
      if (adapter >= 0) grouped.adapted = static_cast<int32_t>(grouped.tiles.size());
    }
    return grouped;
  }

  static void ExpectNear(const std::vector<Bf16>& got, const std::vector<double>& expected,
                         const std::string& what) {
    ASSERT_EQ(got.size(), expected.size());
    for (size_t i = 0; i < got.size(); ++i) {
      // Half a unit in the last place of bf16, and what f32 and fast exponentials lose.
      ASSERT_NEAR(ToFloat(got[i]), expected[i], std::abs(expected[i]) / 250 + 2e-4)
          << what << ", element " << i;
    }
  }

  static int32_t Multiprocessors() {
    int count = 0;
    SWAA_CUDA_CHECK(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, 0));
    return count;
  }

  void CheckShape(int64_t in, int64_t out) {
    // Parts as qkv has them; one rank for all and one for each; an adapter that changes a part of
    // the product alone, one of a high rank, and one that leaves it alone.
    const std::vector<std::vector<Part>> parts = {
        {RandomPart(in, 0, out - 40, 8), RandomPart(in, out - 40, 24, 8),
         RandomPart(in, out - 16, 16, 8)},
        {RandomPart(in, 0, out, 1)},
        {RandomPart(in, 8, 32, 17), RandomPart(in, out - 8, 8, 40)},
        {RandomPart(in, 16, out - 16, 200)},
    };
    std::vector<LoraSpec> specs;
    for (const auto& one : parts) specs.push_back(SpecOf(one, in));
    const auto packed = PackCudaLora(specs, &memory_);
    ASSERT_TRUE(packed.ok()) << packed.status();
    const auto adapters = static_cast<int32_t>(parts.size()) + 1;
    // Two products an adapter; the first is never asked for.
    std::vector<const LoraDeviceWeight*> table(2 * adapters, nullptr);
    for (int32_t a = 0; a + 1 < adapters; ++a) {
      table[2 * a + 1] = static_cast<const CudaLoraWeight&>(*(*packed)[a]).device();
    }
    const DeviceArray<const LoraDeviceWeight*> device_table(table);
    for (const int64_t rows : {1, 2, 15, 50, 300}) {
      std::vector<int32_t> adapter_of(rows);
      for (int32_t& a : adapter_of) a = static_cast<int32_t>(random_() % (adapters + 1)) - 1;
      const Grouped grouped = Group(adapter_of, adapters);
      const auto x = Random(rows * in, 1), base = Random(rows * out, 1);
      const DeviceArray<Bf16> device_x(ToBf16s(x));
      DeviceArray<Bf16> result(ToBf16s(base));
      const DeviceArray<LoraTile> tiles(grouped.tiles);
      const DeviceArray<int32_t> grouped_rows(grouped.rows);
      const auto all_tiles = static_cast<int32_t>(grouped.tiles.size());
      const DeviceArray<int32_t> counts(std::vector<int32_t>{grouped.adapted, all_tiles});
      const DeviceArray<float> sums(LoraSums(rows));
      DeviceArray<Bf16> gated(rows * out / 2);
      for (const int32_t splits : {1, kLoraSplits}) {
        if (splits > 1 && rows > kLoraSplitRows) continue;
        LoraArguments arguments = {.rows = {.tile_count = counts.data(),
                                            .all_tile_count = counts.data() + 1,
                                            .tiles = tiles.data(),
                                            .rows = grouped_rows.data(),
                                            .weights = device_table.data(),
                                            .products = 2,
                                            .max_tiles = grouped.adapted,
                                            .max_all_tiles = all_tiles,
                                            .splits = splits},
                                   .product = 1,
                                   .x = device_x.data(),
                                   .in_features = in,
                                   .out = result.data(),
                                   .out_features = out,
                                   .sums = sums.data()};
        std::vector<double> expected = base;
        for (int64_t r = 0; r < rows; ++r) {
          const int32_t adapter = adapter_of[r];
          if (adapter < 0 || adapter + 1 == adapters) continue;
          for (const Part& part : parts[adapter]) {
            const auto added =
                reference::LowRank(std::span(x).subspan(r * in, in), part.down, part.up);
            for (int64_t o = 0; o < part.outputs; ++o) {
              expected[r * out + part.first_output + o] += added[o];
            }
          }
        }
        const std::string what =
            absl::StrCat(rows, " rows, splits ", splits, ", ", in, " -> ", out);
        const Launch launch = {.stream = stream_, .programmatic = HasProgrammaticLaunch()};
        result.Set(ToBf16s(base));
        AddLora(arguments, multiprocessors_, launch);
        ExpectNear(result.Get(), expected, what);
        // The sum is not rounded before the gate.
        result.Set(ToBf16s(base));
        arguments.gated = gated.data();
        AddLora(arguments, multiprocessors_, launch);
        ExpectNear(gated.Get(), reference::SiluMul(expected, out / 2), what + ", gated");
        if (HasFatalFailure()) return;
      }
    }
  }

  const uint32_t seed_ = swaa::testing::Seed();
  const int32_t multiprocessors_ = Multiprocessors();
  std::mt19937 random_{seed_};
  AdapterMemory memory_{0};
  TestStream stream_;
};

TEST_F(LoraGpuTest, EachRowGetsItsOwnAdapters) {
  SCOPED_TRACE(seed_);
  for (const auto& [in, out] : {std::pair<int64_t, int64_t>{40, 96}, {104, 208}}) {
    CheckShape(in, out);
    if (HasFatalFailure()) return;
  }
}

TEST_F(LoraGpuTest, ModelShapesAreRight) {
  SCOPED_TRACE(seed_);
  CheckShape(576, 960);
  CheckShape(2560, 6144);
}

TEST_F(LoraGpuTest, MemoryIsCountedAndGivenBack) {
  const std::vector<Part> parts = {RandomPart(64, 0, 64, 16)};
  const LoraSpec specs[] = {SpecOf(parts, 64), SpecOf(parts, 64)};
  for (int round = 0; round < 3; ++round) {
    const auto packed = PackCudaLora(specs, &memory_);
    ASSERT_TRUE(packed.ok()) << packed.status();
    EXPECT_EQ(memory_.bytes(), (*packed)[0]->bytes() + (*packed)[1]->bytes());
    EXPECT_GE((*packed)[1]->bytes(), 2 * 2 * 64 * 16);
  }
  EXPECT_EQ(memory_.bytes(), 0);
}

TEST_F(LoraGpuTest, WhatIsNotServedIsNamed) {
  const std::vector<Part> odd = {RandomPart(64, 4, 64, 16)};
  const std::vector<Part> high = {RandomPart(64, 0, 64, kMaxLoraRanks + 1)};
  for (const std::vector<Part>& parts : {odd, high}) {
    const LoraSpec spec = SpecOf(parts, 64);
    const auto packed = PackCudaLora({&spec, 1}, &memory_);
    EXPECT_EQ(packed.status().code(), absl::StatusCode::kUnimplemented) << packed.status();
  }
  EXPECT_FALSE(memory_.Allocate(int64_t{1} << 50).ok());
  EXPECT_EQ(memory_.Allocate(int64_t{1} << 50).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(memory_.bytes(), 0);
}

}  // namespace
}  // namespace swaa::kernels::cuda
