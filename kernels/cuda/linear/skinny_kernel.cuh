// The kernel of skinny products that runs on every GPU since Ampere; skinny_product.h says what it
// computes, skinny_partition.h how the weight is dealt to blocks. Tiles of weight and x pass
// through a ring of kStages in shared memory by cp.async. The next kernel may start as soon as the
// one before is complete: two blocks of different launches fit a multiprocessor.

#ifndef SWAA_KERNELS_CUDA_LINEAR_SKINNY_KERNEL_CUH_
#define SWAA_KERNELS_CUDA_LINEAR_SKINNY_KERNEL_CUH_

#include <cstdint>

#include "kernels/cuda/linear/skinny_tile.cuh"
#include "kernels/cuda/ptx.cuh"

namespace swaa::kernels::cuda {

// A thread's part of the copies of one tile after the other into stages. A row of a stage has
// kTileK elements; its 16-byte piece c lies at piece c ^ (row & 7), so that eight rows of one
// column meet all banks. A thread copies one piece of every kPassRows-th row.
template <int kRows, int kTileK>
class TileCopier {
 public:
  __device__ TileCopier(const SkinnyKernelParams& params, uint32_t shared, int32_t first_tile)
      : params_(params),
        tile_(params.partition, first_tile),
        k_(tile_.k_tile * kTileK + threadIdx.x % kPieces * 8) {
    const int32_t row = threadIdx.x / kPieces;
    const int32_t piece = threadIdx.x % kPieces;
    to_ = shared + row * kRowBytes + (piece ^ (row & 7)) * 16;
    // With silu_mul a warp's 16 rows are 8 of gate and the same 8 of up. A pass has a multiple of
    // 16 rows, so that a thread's are all of gate or all of up.
    const int32_t halves = params.out.silu_mul ? 2 : 1;
    pass_features_ = kPassRows / halves;
    const int32_t in_tile = params.out.silu_mul ? row / 16 * 8 + row % 8 : row;
    feature_ = tile_.row_tile * (kSkinnyTileRows / halves) + in_tile;
    const int64_t weight_row =
        feature_ + (params.out.silu_mul && (row & 8) != 0 ? params.out.features : 0);
    weight_ = params.weight + weight_row * params.in_features;
    x_ = params.x + row * params.x_stride;
  }

  __device__ void CopyWeight(int stage) const {
    const uint32_t to = to_ + stage * kStageBytes;
    const int64_t pass_elements = int64_t{pass_features_} * params_.in_features;
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) {
      const bool valid =
          k_ < params_.in_features && feature_ + pass * pass_features_ < params_.out.features;
      ptx::CopyAsync(to + pass * kPassRows * kRowBytes, weight_ + pass * pass_elements + k_, valid);
    }
  }

  __device__ void CopyX(int stage) const {
    const int32_t row = threadIdx.x / kPieces;
    const uint32_t to = to_ + stage * kStageBytes + kSkinnyTileRows * kRowBytes;
#pragma unroll
    for (int pass = 0; pass < kRows; pass += kPassRows) {
      if (row + pass >= kRows) break;
      const bool valid = k_ < params_.in_features && row + pass < params_.out.rows;
      ptx::CopyAsync(to + pass * kRowBytes, x_ + pass * params_.x_stride + k_, valid);
    }
  }

  // Moves on to the next tile.
  __device__ void Next() {
    tile_.Next(params_.partition);
    k_ += kTileK;
    if (tile_.k_tile != 0) return;
    k_ = threadIdx.x % kPieces * 8;
    const int32_t tile_features = pass_features_ * kPasses;
    feature_ += tile_features;
    weight_ += int64_t{tile_features} * params_.in_features;
  }

 private:
  static constexpr int kRowBytes = kTileK * 2;
  static constexpr int kPieces = kTileK / 8;                  // of a row
  static constexpr int kPassRows = kSkinnyThreads / kPieces;  // rows copied at once
  static constexpr int kPasses = kSkinnyTileRows / kPassRows;
  static constexpr int kStageBytes = SkinnyStageBytes<kRows, kTileK>();
  static_assert(kPassRows % 16 == 0);

  const SkinnyKernelParams& params_;
  TileCursor tile_;
  int32_t k_;              // first of this thread's eight input features
  uint32_t to_;            // shared memory, in stage 0
  int32_t feature_;        // of out, of the first pass
  int32_t pass_features_;  // from pass to pass
  const Bf16* weight_;     // row of the first pass
  const Bf16* x_;          // likewise
};

template <int kRows, int kTileK, int kStages>
__global__ void __launch_bounds__(kSkinnyThreads, 2)
    SkinnyKernel(const __grid_constant__ SkinnyKernelParams params) {
  constexpr int kStageBytes = SkinnyStageBytes<kRows, kTileK>();
  extern __shared__ __align__(128) uint8_t shared_memory[];
  const uint32_t shared = ptx::SharedAddress(shared_memory);
  const SkinnyPartition& partition = params.partition;
  const int32_t begin = partition.Begin(blockIdx.x);
  const int32_t count = partition.Begin(blockIdx.x + 1) - begin;
  TileCopier<kRows, kTileK> copier(params, shared, begin);

  // Weights depend on no other kernel: their first tiles are asked for before x is waited for. A
  // group of copies completes after those committed before it, so the first x then brings all of
  // these with it; where there is nothing to wait for each tile travels with its x.
  TileCopier<kRows, kTileK> waiting = copier;
#pragma unroll 1
  for (int stage = 0; stage < kStages; ++stage) {
    if (stage < count) {
      copier.CopyWeight(stage);
      if (!params.dependent) copier.CopyX(stage);
      copier.Next();
    }
    if (!params.dependent) ptx::CommitCopies();
  }
  if (!params.shares_x) ptx::LaunchDependents();
  if (params.dependent) {
    ptx::WaitForPredecessor();
#pragma unroll 1
    for (int stage = 0; stage < kStages; ++stage) {
      if (stage < count) waiting.CopyX(stage);
      ptx::CommitCopies();
      waiting.Next();
    }
  }
  if (params.shares_x) ptx::LaunchDependents();

  WarpSums<kRows> sums;
  sums.Clear();
  TileCursor tile(partition, begin);
  int stage = 0;
  for (int32_t i = 0; i < count; ++i) {
    ptx::WaitForCopies<kStages - 2>();
    // Also: every warp is done with the stage before this one, which is filled anew.
    __syncthreads();
    if (i > 0) {
      if (i + kStages - 1 < count) {
        const int free_stage = stage == 0 ? kStages - 1 : stage - 1;
        copier.CopyWeight(free_stage);
        copier.CopyX(free_stage);
        copier.Next();
      }
      ptx::CommitCopies();
    }
    MultiplyTile<kRows, kTileK>(shared + stage * kStageBytes, sums);
    if (tile.k_tile == partition.k_tiles - 1 || i == count - 1) {
      if (CombineShares(params, tile.row_tile, sums)) StoreSums(params.out, tile.row_tile, sums);
      sums.Clear();
    }
    tile.Next(partition);
    stage = stage == kStages - 1 ? 0 : stage + 1;
  }
}

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_LINEAR_SKINNY_KERNEL_CUH_
