// The first half of adapters' products: down * x for tiles of rows. Lanes load 16 consecutive bytes
// of a row of both operands: a tensor-core product sums its inputs in any order that both share.

#ifndef SWAA_KERNELS_CUDA_LORA_SHRINK_CUH_
#define SWAA_KERNELS_CUDA_LORA_SHRINK_CUH_

#include <cstdint>

#include "kernels/cuda/lora/lora.h"
#include "kernels/cuda/ptx.cuh"

namespace swaa::kernels::cuda {

inline constexpr int kLoraWarps = 4;  // of a block; they share the inputs of a split
inline constexpr int kLoraThreads = kLoraWarps * 32;
inline constexpr int kStepInputs = 32;

// What the tile's adapter adds to the product; null: nothing.
__device__ __forceinline__ const LoraDeviceWeight* WeightOf(const LoraArguments& p,
                                                            const LoraTile& tile) {
  if (tile.adapter < 0) return nullptr;
  return p.rows.weights[int64_t{tile.adapter} * p.rows.products + p.product];
}

struct InputRange {
  int32_t begin, end;  // steps
};

// Blocks of ranks whose inputs are loaded at once.
inline constexpr int kRankBlocks = 3;

// The sums of kRankBlocks blocks of ranks, as many as there are, by the tile's rows; those of the
// warp's inputs.
__device__ __forceinline__ void MultiplyRanks(const Bf16* const (&x)[2], const Bf16* down,
                                              int32_t ranks, int32_t in_features,
                                              const InputRange& range,
                                              float (&sums)[kRankBlocks][2][4]) {
  const int32_t lane = static_cast<int32_t>(threadIdx.x % 32), warp = threadIdx.x / 32;
  const Bf16* first = down + int64_t{lane / 4} * in_features;
  const auto load = [&](const Bf16* from, int32_t k, bool exists) {
    return exists && k < in_features ? *reinterpret_cast<const uint4*>(from + k)
                                     : uint4{0, 0, 0, 0};
  };
#pragma unroll 2
  for (int32_t step = range.begin + warp; step < range.end; step += kLoraWarps) {
    const int32_t k = step * kStepInputs + lane % 4 * 8;
    const uint4 low = load(x[0], k, x[0] != nullptr), high = load(x[1], k, x[1] != nullptr);
#pragma unroll
    for (int b = 0; b < kRankBlocks; ++b) {
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        const int32_t rank = b * kLoraRankBlock + n * 8;
        const uint4 w = load(first + int64_t{rank} * in_features, k, rank < ranks);
        ptx::MultiplyAdd(sums[b][n], low.x, high.x, low.y, high.y, w.x, w.y);
        ptx::MultiplyAdd(sums[b][n], low.z, high.z, low.w, high.w, w.z, w.w);
      }
    }
  }
}

// sums = down * x of the tile, the inputs of one of the splits. By all threads of the block.
__device__ __forceinline__ void Shrink(const LoraArguments& p, const LoraTile& tile,
                                       int32_t split) {
  constexpr int32_t kGroup = kRankBlocks * kLoraRankBlock;
  __shared__ float shared[kLoraWarps][kLoraTileRows][kGroup + 2];
  const LoraDeviceWeight* weight = WeightOf(p, tile);
  if (weight == nullptr) return;
  const auto in_features = static_cast<int32_t>(p.in_features);
  const int32_t steps = (in_features + kStepInputs - 1) / kStepInputs;
  const InputRange range = {steps * split / p.rows.splits, steps * (split + 1) / p.rows.splits};
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const int32_t lane = thread % 32, warp = thread / 32;
  const Bf16* x[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int32_t row = lane / 4 + h * 8;
    x[h] = row < tile.count ? p.x + p.rows.rows[tile.first + row] * p.in_features : nullptr;
  }
  const int32_t ranks = weight->ranks;
  for (int32_t rank = 0; rank < ranks; rank += kGroup) {
    float sums[kRankBlocks][2][4] = {};
    MultiplyRanks(x, weight->down + rank * p.in_features, ranks - rank, in_features, range, sums);
#pragma unroll
    for (int b = 0; b < kRankBlocks; ++b) {
#pragma unroll
      for (int n = 0; n < 2; ++n) {
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          const int32_t column = b * kLoraRankBlock + n * 8 + lane % 4 * 2 + c % 2;
          shared[warp][lane / 4 + c / 2 * 8][column] = sums[b][n][c];
        }
      }
    }
    __syncthreads();
    const int32_t columns = min(kGroup, ranks - rank);
    for (int32_t i = thread; i < tile.count * columns; i += kLoraThreads) {
      const int32_t row = i / columns, column = i % columns;
      float sum = 0;
#pragma unroll
      for (int w = 0; w < kLoraWarps; ++w) sum += shared[w][row][column];
      const int64_t at = int64_t{tile.first + row} * p.rows.splits + split;
      p.sums[at * kMaxLoraRanks + rank + column] = sum;
    }
    __syncthreads();
  }
}

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_LORA_SHRINK_CUH_
