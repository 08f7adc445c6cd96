// Matrix products on the GPU against double precision, and what they promise: rows independent of
// each other, the same bits run after run, chains of overlapping kernels equal to serial ones.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cuda_runtime_api.h>
#include <iostream>
#include <memory>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/linear/products.h"
#include "kernels/cuda/linear/skinny_hopper_grid.h"
#include "tests/gpu/linear_problem.h"

namespace swaa::kernels::cuda {
namespace {

using linear_testing::DeviceMemory;
using linear_testing::LinearProblem;
using linear_testing::LinearProblemOptions;

// SWAA_TEST_SEED repeats a run.
uint32_t Seed() {
  static const uint32_t seed = [] {
    const char* fixed = std::getenv("SWAA_TEST_SEED");
    const uint32_t value =
        fixed != nullptr ? static_cast<uint32_t>(std::stoul(fixed)) : std::random_device()();
    std::cout << "SWAA_TEST_SEED=" << value << std::endl;
    return value;
  }();
  return seed;
}

struct Tuning {
  const char* name;
  SkinnyTuning tuning;
};

std::vector<Tuning> Tunings() {
  return {
      {"default", {}},
      {"few_rows", {.max_rows = 16}},
      {"shallow", {.stages = 3, .max_cluster = 2}},
      {"two_blocks", {.blocks_per_multiprocessor = 2, .max_cluster = 1}},
      {"portable_default", {.hopper = false}},
      {"portable", {.max_rows = 64, .hopper = false}},
      {"portable_shallow", {.max_rows = 64, .stages = 3, .hopper = false}},
      {"portable_wide", {.max_rows = 64, .k_tile = 128, .hopper = false}},
      {"portable_two_blocks",
       {.max_rows = 64, .blocks_per_multiprocessor = 2, .min_tiles_per_block = 1, .hopper = false}},
      {"portable_long_blocks", {.max_rows = 64, .min_tiles_per_block = 4, .hopper = false}},
  };
}

class LinearGpuTest : public ::testing::TestWithParam<Tuning> {
 protected:
  LinearGpuTest() : workspace_(Products::kWorkspaceBytes) {
    auto products =
        Products::Create(workspace_.as<void>(), Products::kWorkspaceBytes, GetParam().tuning);
    if (!products.ok()) throw std::runtime_error(std::string(products.status().message()));
    products_ = *std::move(products);
    SWAA_CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  }
  ~LinearGpuTest() override { cudaStreamDestroy(stream_); }

  void Run(const LinearArguments& arguments, bool dependent = false) {
    products_->Run(arguments, stream_, dependent);
    SWAA_CUDA_CHECK(cudaStreamSynchronize(stream_));
  }

  // The most rows that our own kernel serves.
  int64_t MaxRows() const {
    int64_t rows = kMaxSkinnyRows;
    while (!products_->IsSkinny({.out_features = 64, .in_features = 64, .rows = rows})) --rows;
    return rows;
  }

  void ExpectRight(const LinearProblemOptions& options) {
    SCOPED_TRACE(absl::StrCat(options.in_features, " -> ", options.out_features, ", rows ",
                              options.rows, options.out_type == DataType::kF32 ? ", f32" : ", bf16",
                              options.bias ? ", bias" : "", options.silu_mul ? ", silu_mul" : "",
                              ", gap ", options.x_gap, ", seed ", options.seed));
    LinearProblem problem(options);
    Run(problem.arguments());
    EXPECT_LT(problem.Error(), options.out_type == DataType::kF32 ? 1e-3 : 1e-2);
  }

  DeviceMemory workspace_;
  std::unique_ptr<Products> products_;
  cudaStream_t stream_ = nullptr;
};

constexpr int64_t kRows[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 100, 128, 1000};

TEST_P(LinearGpuTest, EveryRowCountIsRight) {
  uint64_t seed = Seed();
  for (const int64_t rows : kRows) {
    ExpectRight({.out_features = 960, .in_features = 576, .rows = rows, .seed = ++seed});
    ExpectRight({.out_features = 2560, .in_features = 9728, .rows = rows, .seed = ++seed});
    ExpectRight({.out_features = 2560,
                 .in_features = 4096,
                 .rows = rows,
                 .out_type = DataType::kF32,
                 .bias = true,
                 .x_gap = 2048,
                 .seed = ++seed});
  }
}

TEST_P(LinearGpuTest, ModelShapesAreRight) {
  const int64_t shapes[][2] = {{6144, 2560}, {2560, 4096}, {19456, 2560}, {2560, 9728},
                               {960, 576},   {576, 576},   {3072, 576},   {576, 1536}};
  uint64_t seed = Seed() + 100;
  for (const auto& [out, in] : shapes) {
    for (const int64_t rows : {1, 8, 40, 64, 200}) {
      ExpectRight({.out_features = out, .in_features = in, .rows = rows, .seed = ++seed});
    }
  }
  for (const int64_t rows : {1, 17}) {
    ExpectRight({.out_features = 151936,
                 .in_features = 2560,
                 .rows = rows,
                 .out_type = DataType::kF32,
                 .seed = ++seed});
    ExpectRight({.out_features = 49152,
                 .in_features = 576,
                 .rows = rows,
                 .out_type = DataType::kF32,
                 .seed = ++seed});
  }
}

// Sizes at and around the edges of tiles, with everything else drawn at random.
TEST_P(LinearGpuTest, OddShapesAreRight) {
  std::mt19937_64 random(Seed() + 1000);
  const int64_t sizes[] = {8,   16,  24,  56,  64,  72,  120,  128,  136,
                           192, 248, 256, 264, 384, 520, 1016, 1160, 2056};
  const auto size = [&] { return sizes[random() % std::size(sizes)]; };
  for (int i = 0; i < 200; ++i) {
    LinearProblemOptions options;
    options.out_features = size();
    options.in_features = size();
    options.rows = 1 + static_cast<int64_t>(random() % 70);
    options.out_type = random() % 2 == 0 ? DataType::kF32 : DataType::kBf16;
    options.bias = random() % 2 == 0;
    options.x_gap = random() % 2 == 0 ? 0 : 8 * static_cast<int64_t>(random() % 20);
    options.silu_mul =
        options.out_features % 16 == 0 && options.rows <= MaxRows() && random() % 3 == 0;
    options.seed = random();
    ExpectRight(options);
    if (::testing::Test::HasFailure()) break;
  }
}

TEST_P(LinearGpuTest, SiluMulIsRight) {
  uint64_t seed = Seed() + 2000;
  for (const int64_t rows : {1, 5, 8, 16, 31, 64}) {
    if (rows > MaxRows()) continue;
    for (const int64_t width : {1536, 9728, 72}) {
      for (const bool bias : {false, true}) {
        ExpectRight({.out_features = 2 * width,
                     .in_features = 576,
                     .rows = rows,
                     .bias = bias,
                     .silu_mul = true,
                     .seed = ++seed});
      }
    }
  }
}

// What compute-sanitizer can run in minutes, our own kernels alone: racecheck ends with a fault of
// its own in cuBLASLt's. On Hopper the first weight's sums are complete within a block, the
// others' within a cluster.
TEST_P(LinearGpuTest, Small) {
  uint64_t seed = Seed() + 3000;
  for (const int64_t rows : {1, 8, 17, 64}) {
    if (rows > MaxRows()) break;
    ExpectRight({.out_features = 136, .in_features = 264, .rows = rows, .seed = ++seed});
    ExpectRight({.out_features = 200,
                 .in_features = 2048,
                 .rows = rows,
                 .out_type = DataType::kF32,
                 .bias = true,
                 .x_gap = 8,
                 .seed = ++seed});
    ExpectRight(
        {.out_features = 208, .in_features = 2048, .rows = rows, .silu_mul = true, .seed = ++seed});
  }
}

// A row's result is the same bits alone and beside others, wherever it stands.
TEST_P(LinearGpuTest, RowsDoNotDependOnEachOther) {
  const LinearProblemOptions shapes[] = {
      {.out_features = 6144, .in_features = 2560},
      {.out_features = 2560, .in_features = 9728, .out_type = DataType::kF32},
      {.out_features = 576, .in_features = 1536},
      {.out_features = 3072, .in_features = 576, .silu_mul = true}};
  for (LinearProblemOptions options : shapes) {
    options.rows = MaxRows();
    options.seed = Seed() + 3000;
    LinearProblem problem(options);
    Run(problem.arguments());
    const std::vector<uint8_t> together = problem.Out();
    const int64_t row_bytes = problem.out_row_bytes();
    for (const int64_t piece : {1, 5, 8, 12, 16, 20, 32, 48}) {
      problem.PoisonOut();
      for (int64_t first = 0; first < options.rows; first += piece) {
        LinearArguments part = problem.arguments();
        part.rows = std::min(piece, options.rows - first);
        part.x += first * part.x_stride;
        part.out = static_cast<char*>(part.out) + first * row_bytes;
        products_->Run(part, stream_, /*dependent=*/first != 0);
      }
      SWAA_CUDA_CHECK(cudaStreamSynchronize(stream_));
      EXPECT_EQ(problem.Out(), together) << "pieces of " << piece << " rows";
    }
  }
}

TEST_P(LinearGpuTest, EveryRunGivesTheSameBits) {
  for (const int64_t rows : {1, 16, 64, 100}) {
    LinearProblem problem({.out_features = 2560,
                           .in_features = 4096,
                           .rows = rows,
                           .out_type = DataType::kF32,
                           .seed = Seed() + 4000});
    Run(problem.arguments());
    const std::vector<uint8_t> first = problem.Out();
    for (int run = 0; run < 30; ++run) {
      problem.PoisonOut();
      Run(problem.arguments(), /*dependent=*/true);
      ASSERT_EQ(problem.Out(), first) << "rows " << rows << ", run " << run;
    }
  }
}

// Products that feed each other through two buffers, as a model's do: each reads what the one
// before wrote, over what the one before that read.
class Chain {
 public:
  Chain(int64_t rows, uint64_t seed)
      : rows_(rows), a_(kMaxRows * kWide * 2), b_(kMaxRows * kWide * 2) {
    for (int layer = 0; layer < kLayers; ++layer) {
      for (const auto& [out, in] : kShapes) {
        weights_.push_back(std::make_unique<DeviceMemory>(out * in * 2));
        linear_testing::FillUniform(weights_.back()->as<Bf16>(), out * in,
                                    std::sqrt(3.0f / static_cast<float>(in)), ++seed);
      }
    }
    SWAA_CUDA_CHECK(cudaDeviceSynchronize());
    seed_ = seed;
  }

  void Reset() {
    a_.Poison();
    b_.Poison();
    linear_testing::FillUniform(a_.as<Bf16>(), rows_ * kShapes[0][1], 1.7f, seed_);
    SWAA_CUDA_CHECK(cudaDeviceSynchronize());
  }

  void Enqueue(Products& products, cudaStream_t stream, bool dependent) {
    DeviceMemory* from = &a_;
    DeviceMemory* to = &b_;
    for (size_t i = 0; i < weights_.size(); ++i) {
      const auto& [out, in] = kShapes[i % std::size(kShapes)];
      LinearArguments product;
      product.weight = weights_[i]->as<Bf16>();
      product.out_features = out;
      product.in_features = in;
      product.x = from->as<Bf16>();
      product.out = to->as<void>();
      product.rows = rows_;
      product.silu_mul = products.IsSkinny(product) && out == 3072;
      if (out == 3072 && !product.silu_mul) product.out_features = out / 2;
      products.Run(product, stream, dependent && i > 0);
      std::swap(from, to);
    }
  }

  std::vector<uint8_t> Result() const {
    std::vector<uint8_t> both = a_.Download();
    const std::vector<uint8_t> b = b_.Download();
    both.insert(both.end(), b.begin(), b.end());
    return both;
  }

 private:
  static constexpr int kLayers = 12;
  static constexpr int64_t kMaxRows = 128;
  static constexpr int64_t kWide = 1536;
  static constexpr int64_t kShapes[][2] = {{960, 576}, {576, 960}, {3072, 576}, {576, 1536}};

  const int64_t rows_;
  uint64_t seed_ = 0;
  std::vector<std::unique_ptr<DeviceMemory>> weights_;
  DeviceMemory a_, b_;
};

TEST_P(LinearGpuTest, OverlappingChainInAGraphEqualsASerialOne) {
  for (const int64_t rows : {1, 8, 24, 64, 100}) {
    Chain chain(rows, Seed() + 5000);
    chain.Reset();
    chain.Enqueue(*products_, stream_, /*dependent=*/false);
    SWAA_CUDA_CHECK(cudaStreamSynchronize(stream_));
    const std::vector<uint8_t> serial = chain.Result();

    cudaGraph_t graph;
    cudaGraphExec_t replay;
    SWAA_CUDA_CHECK(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
    chain.Enqueue(*products_, stream_, /*dependent=*/true);
    SWAA_CUDA_CHECK(cudaStreamEndCapture(stream_, &graph));
    SWAA_CUDA_CHECK(cudaGraphInstantiate(&replay, graph, 0));
    for (int run = 0; run < 20; ++run) {
      chain.Reset();
      SWAA_CUDA_CHECK(cudaGraphLaunch(replay, stream_));
      SWAA_CUDA_CHECK(cudaStreamSynchronize(stream_));
      ASSERT_EQ(chain.Result(), serial) << "rows " << rows << ", replay " << run;
    }
    SWAA_CUDA_CHECK(cudaGraphExecDestroy(replay));
    SWAA_CUDA_CHECK(cudaGraphDestroy(graph));
  }
}

TEST_P(LinearGpuTest, PreparedShapesAreRight) {
  LinearProblemOptions options = {
      .out_features = 6144, .in_features = 2560, .bias = true, .seed = Seed() + 6000};
  options.rows = 300;
  LinearProblem problem(options);
  const std::vector<int64_t> rows = {1, 64, 65, 128, 300, 2048};
  const absl::Status status = products_->Prepare(problem.arguments(), rows);
  ASSERT_TRUE(status.ok()) << status.message();
  for (const int64_t count : {96, 120, 290, 300}) {
    options.rows = count;
    ExpectRight(options);
  }
}

INSTANTIATE_TEST_SUITE_P(Tunings, LinearGpuTest, ::testing::ValuesIn(Tunings()),
                         [](const auto& info) { return std::string(info.param.name); });

// Every tile of the weight belongs to one block, and no block is without.
TEST(SkinnyHopperGridTest, BlocksCoverTheWeight) {
  for (const int64_t rows : {8, 136, 576, 960, 2560, 6144, 19456, 151936}) {
    for (const int64_t in : {8, 64, 72, 576, 2560, 9728}) {
      for (const int32_t max_cluster : {1, 2, 4}) {
        for (const bool silu_mul : {false, true}) {
          const SkinnyHopperGrid grid =
              MakeSkinnyHopperGrid(rows, in, silu_mul, {132, 64, 31}, max_cluster);
          ASSERT_LE(grid.blocks(), 132);
          ASSERT_LE(grid.tile_rows, kSkinnyMaxTileRows);
          ASSERT_EQ(grid.tile_rows % (silu_mul ? 16 : 8), 0);
          ASSERT_GE(int64_t{grid.row_tiles} * grid.tile_rows, rows);
          ASSERT_LT(int64_t{grid.row_tiles - 1} * grid.tile_rows, rows);
          std::vector<int> seen(grid.row_tiles * grid.k_tiles);
          for (int32_t block = 0; block < grid.blocks(); ++block) {
            const SkinnyTileRange range(grid, block);
            EXPECT_GT(range.count(), 0);
            for (int32_t row = range.row_begin; row < range.row_end; ++row) {
              for (int32_t k = range.k_begin; k < range.k_end; ++k) {
                ++seen[row * grid.k_tiles + k];
              }
            }
          }
          EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), std::ssize(seen))
              << in << " -> " << rows << ", clusters of up to " << max_cluster;
        }
      }
    }
  }
}

TEST(ProductsTest, RefusesShapesAndWorkspaces) {
  EXPECT_TRUE(Products::CheckShape("layer 3 attn_q.weight", 576, 24).ok());
  const absl::Status odd = Products::CheckShape("layer 3 attn_q.weight", 576, 20);
  EXPECT_EQ(odd.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(odd.message(),
            "layer 3 attn_q.weight: shape [576, 20]: on CUDA both sizes must be positive "
            "multiples of 8");
  DeviceMemory workspace(1 << 20);
  const auto products = Products::Create(workspace.as<void>(), 1 << 20);
  EXPECT_EQ(products.status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace swaa::kernels::cuda
