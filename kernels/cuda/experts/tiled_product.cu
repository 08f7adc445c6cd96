// Expert products of many rows, by the tensor cores: tiles of 128 pairs by 128 rows of an expert's
// weight, whose inputs pass through a ring in shared memory. Rows of x are gathered by pair as they
// are copied.

#include <cstdint>

#include "base/status_macros.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/elementwise/launch.cuh"
#include "kernels/cuda/experts/stages.h"
#include "kernels/cuda/ptx.cuh"

namespace swaa::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kInputs = 64;  // of a stage: 128 bytes a row
constexpr int kRowBytes = kInputs * 2;
constexpr int kWeightRows = 128;
constexpr int kStages = 3;
constexpr int kXBytes = kTiledTilePairs * kRowBytes;
constexpr int kStageBytes = kXBytes + kWeightRows * kRowBytes;
constexpr int kSharedBytes = kStages * kStageBytes;
// Warps: two along the pairs, four along the rows of the weight.
constexpr int kWarpPairs = 64;
constexpr int kWarpRows = 32;
constexpr int kPairUnits = kWarpPairs / 16;
constexpr int kRowUnits = kWarpRows / 8;
// A thread copies one 16-byte piece of every kPassRows-th row.
constexpr int kPieces = kRowBytes / 16;
constexpr int kPassRows = kThreads / kPieces;
constexpr int kPasses = kTiledTilePairs / kPassRows;
static_assert(kTiledTilePairs == kWeightRows);

// Piece c of row r lies at piece c ^ (r & 7): eight rows of one column meet all banks.
__device__ __forceinline__ uint32_t PieceOffset(int32_t row, int32_t piece) {
  return static_cast<uint32_t>(row * kRowBytes + (piece ^ (row & 7)) * 16);
}

// A thread's part of the copies.
template <bool kGateUp>
class Copier {
 public:
  __device__ Copier(const ExpertProduct& p, const ExpertTile& tile, uint32_t shared)
      : in_features_(p.in_features), shared_(shared) {
    const auto thread = static_cast<int32_t>(threadIdx.x);
    row_ = thread / kPieces;
    piece_ = thread % kPieces;
    const ExpertPointers& pointers = p.experts[tile.expert];
    const Bf16* weight = kGateUp ? pointers.gate_up : pointers.down;
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) {
      const int32_t row = row_ + pass * kPassRows;
      x_[pass] = nullptr;
      if (row < tile.count) {
        const int64_t at = kGateUp ? p.routes.rows[tile.first + row] : tile.first + row;
        x_[pass] = p.x + at * p.in_features;
      }
      // Of gate_up, eight rows of gate and the same eight of up alternate.
      const auto block = static_cast<int32_t>(blockIdx.x);
      const int32_t feature =
          kGateUp ? block * (kWeightRows / 2) + row / 16 * 8 + row % 8 : block * kWeightRows + row;
      const int64_t half = kGateUp && (row & 8) != 0 ? p.out_features : 0;
      weight_[pass] =
          feature < p.out_features ? weight + (feature + half) * p.in_features : nullptr;
    }
  }

  __device__ __forceinline__ void Copy(int32_t step, int stage) const {
    const int32_t k = step * kInputs + piece_ * 8;
    const uint32_t to = shared_ + stage * kStageBytes;
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) {
      const uint32_t offset = PieceOffset(row_ + pass * kPassRows, piece_);
      const bool inside = k < in_features_;
      ptx::CopyAsync(to + offset, x_[pass] + k, inside && x_[pass] != nullptr);
      ptx::CopyAsync(to + kXBytes + offset, weight_[pass] + k, inside && weight_[pass] != nullptr);
    }
  }

 private:
  int32_t in_features_;
  uint32_t shared_;
  int32_t row_;
  int32_t piece_;
  const Bf16* x_[kPasses];
  const Bf16* weight_[kPasses];
};

using Sums = float[kPairUnits][kRowUnits][4];

// The warp's part of one stage. live: units of 16 pairs that the tile has.
__device__ __forceinline__ void MultiplyStage(uint32_t stage, int32_t first_pair, int32_t first_row,
                                              int32_t live, Sums& sums) {
  const auto lane = static_cast<int32_t>(threadIdx.x % 32);
#pragma unroll
  for (int k = 0; k < kInputs / 16; ++k) {
    uint32_t weight[kRowUnits][2];
#pragma unroll
    for (int n = 0; n < kRowUnits; n += 2) {
      // Matrices: rows 0..7, inputs 0..7 and 8..15; rows 8..15 likewise.
      uint32_t r[4];
      const int32_t row = first_row + n * 8 + lane / 16 * 8 + lane % 8;
      ptx::LoadMatrix4(r, stage + kXBytes + PieceOffset(row, k * 2 + lane / 8 % 2));
      weight[n][0] = r[0];
      weight[n][1] = r[1];
      weight[n + 1][0] = r[2];
      weight[n + 1][1] = r[3];
    }
#pragma unroll
    for (int m = 0; m < kPairUnits; ++m) {
      if (m >= live) break;
      uint32_t x[4];
      const int32_t pair = first_pair + m * 16 + lane % 16;
      ptx::LoadMatrix4(x, stage + PieceOffset(pair, k * 2 + lane / 16));
#pragma unroll
      for (int n = 0; n < kRowUnits; ++n) {
        ptx::MultiplyAdd(sums[m][n], x, weight[n][0], weight[n][1]);
      }
    }
  }
}

// Lanes hold pairs lane / 4 and lane / 4 + 8 of a unit, and two consecutive rows of the weight.
template <bool kGateUp>
__device__ __forceinline__ void StoreTile(const ExpertProduct& p, const ExpertTile& tile,
                                          int32_t first_pair, int32_t first_row, const Sums& sums) {
  const auto lane = static_cast<int32_t>(threadIdx.x % 32);
  const auto store = [&](int32_t pair, int32_t feature, float first, float second) {
    if (pair >= tile.count || feature >= p.out_features) return;
    Bf16* to = p.out + int64_t{tile.first + pair} * p.out_features + feature;
    *reinterpret_cast<uint32_t*>(to) = ptx::PackBf16(first, second);
  };
  const auto gate = [](float g, float up) { return __fdividef(g, 1.0f + __expf(-g)) * up; };
#pragma unroll
  for (int m = 0; m < kPairUnits; ++m) {
    const int32_t pair = first_pair + m * 16 + lane / 4;
    if constexpr (kGateUp) {
#pragma unroll
      for (int n = 0; n < kRowUnits; n += 2) {
        const float(&g)[4] = sums[m][n];
        const float(&up)[4] = sums[m][n + 1];
        const int32_t feature = static_cast<int32_t>(blockIdx.x) * (kWeightRows / 2) +
                                (first_row + n * 8) / 2 + lane % 4 * 2;
        store(pair, feature, gate(g[0], up[0]), gate(g[1], up[1]));
        store(pair + 8, feature, gate(g[2], up[2]), gate(g[3], up[3]));
      }
    } else {
#pragma unroll
      for (int n = 0; n < kRowUnits; ++n) {
        const int32_t feature =
            static_cast<int32_t>(blockIdx.x) * kWeightRows + first_row + n * 8 + lane % 4 * 2;
        store(pair, feature, sums[m][n][0], sums[m][n][1]);
        store(pair + 8, feature, sums[m][n][2], sums[m][n][3]);
      }
    }
  }
}

template <bool kGateUp>
__global__ void __launch_bounds__(kThreads, 2)
    TiledKernel(const __grid_constant__ ExpertProduct p) {
  extern __shared__ __align__(128) uint8_t shared_memory[];
  BeginKernel();
  if (static_cast<int32_t>(blockIdx.y) >= *p.routes.tile_count) return;
  const ExpertTile tile = p.routes.tiles[blockIdx.y];
  const uint32_t shared = ptx::SharedAddress(shared_memory);
  const Copier<kGateUp> copier(p, tile, shared);
  const int32_t steps = (p.in_features + kInputs - 1) / kInputs;
  const auto warp = static_cast<int32_t>(threadIdx.x / 32);
  const int32_t first_pair = warp % 2 * kWarpPairs, first_row = warp / 2 * kWarpRows;
  const int32_t live = min(kPairUnits, max(0, (tile.count - first_pair + 15) / 16));
  for (int stage = 0; stage < kStages - 1; ++stage) {
    if (stage < steps) copier.Copy(stage, stage);
    ptx::CommitCopies();
  }
  Sums sums = {};
  int stage = 0;
  for (int32_t step = 0; step < steps; ++step) {
    ptx::WaitForCopies<kStages - 2>();
    // Also: every warp is done with the stage before this one, which is filled anew.
    __syncthreads();
    const int32_t ahead = step + kStages - 1;
    if (ahead < steps) copier.Copy(ahead, stage == 0 ? kStages - 1 : stage - 1);
    ptx::CommitCopies();
    MultiplyStage(shared + stage * kStageBytes, first_pair, first_row, live, sums);
    stage = stage == kStages - 1 ? 0 : stage + 1;
  }
  StoreTile<kGateUp>(p, tile, first_pair, first_row, sums);
}

template <bool kGateUp>
void LaunchTiled(const ExpertProduct& product, Launch launch) {
  constexpr int32_t kFeatures = kGateUp ? kWeightRows / 2 : kWeightRows;
  const dim3 grid((product.out_features + kFeatures - 1) / kFeatures, product.max_tiles);
  launch.shared_bytes = kSharedBytes;
  LaunchKernel(TiledKernel<kGateUp>, grid, dim3(kThreads), launch, product);
}

absl::Status AllowSharedMemory(void (*kernel)(ExpertProduct)) {
  return CudaStatus(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                         cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes),
                    "shared memory of expert products");
}

}  // namespace

absl::Status PrepareTiledExpertProduct() {
  SWAA_RETURN_IF_ERROR(AllowSharedMemory(TiledKernel<true>));
  return AllowSharedMemory(TiledKernel<false>);
}

void TiledExpertProduct(const ExpertProduct& product, const Launch& launch) {
  if (product.gate_up) {
    LaunchTiled<true>(product, launch);
  } else {
    LaunchTiled<false>(product, launch);
  }
}

}  // namespace swaa::kernels::cuda
