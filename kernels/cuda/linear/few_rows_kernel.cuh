// The kernel for few rows that runs on every GPU since Ampere; few_rows_product.h says what it
// computes, few_rows_partition.h how the weight is dealt to blocks. Tiles of weight and x pass
// through a ring of kStages in shared memory by cp.async. The next kernel may start as soon as the
// first copies are on their way: two blocks of different launches fit a multiprocessor.

#ifndef SWAA_KERNELS_CUDA_LINEAR_FEW_ROWS_KERNEL_CUH_
#define SWAA_KERNELS_CUDA_LINEAR_FEW_ROWS_KERNEL_CUH_

#include <cstdint>

#include "kernels/cuda/linear/few_rows_ptx.cuh"
#include "kernels/cuda/linear/few_rows_tile.cuh"

namespace swaa::kernels::cuda {

// Copies tiles into a stage: rows of kTileK elements, in which the 16-byte piece c of row r lies at
// piece c ^ (r & 7), so that eight rows of one column meet all banks.
template <int kRows, int kTileK>
class TileCopier {
 public:
  __device__ TileCopier(const FewRowsKernelParams& params, uint32_t shared)
      : params_(params),
        piece_(threadIdx.x % kPieces),
        row_(threadIdx.x / kPieces),
        to_(shared + row_ * kRowBytes + (piece_ ^ (row_ & 7)) * 16),
        policy_(ptx::EvictFirstPolicy()) {}

  __device__ void CopyWeight(const TileCursor& tile, int stage) const {
    const int32_t k = tile.k_tile * kTileK + piece_ * 8;
    const uint32_t to = to_ + stage * kStageBytes;
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) {
      const int32_t feature = Feature(tile, pass);
      const bool valid = k < params_.in_features && feature < params_.features;
      ptx::CopyAsync(to + pass * kPassRows * kRowBytes,
                     valid ? Address(feature, k) : params_.weight, valid, policy_);
    }
  }

  // Asks the lines of a tile into L2; each line by the thread that would copy its first piece.
  __device__ void PrefetchWeight(const TileCursor& tile) const {
    const int32_t k = tile.k_tile * kTileK + piece_ * 8;
    if (piece_ % 8 != 0 || k >= params_.in_features) return;
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) {
      const int32_t feature = Feature(tile, pass);
      if (feature < params_.features) ptx::PrefetchL2(Address(feature, k));
    }
  }

  __device__ void CopyX(const TileCursor& tile, int stage) const {
    const int32_t k = tile.k_tile * kTileK + piece_ * 8;
    const uint32_t to = to_ + stage * kStageBytes + kFewRowsTileRows * kRowBytes;
#pragma unroll
    for (int row = 0; row < kRows; row += kPassRows) {
      if (row_ + row >= kRows) break;
      const bool valid = k < params_.in_features && row_ + row < params_.rows;
      ptx::CopyAsync(to + row * kRowBytes,
                     valid ? params_.x + (row_ + row) * params_.x_stride + k : params_.x, valid);
    }
  }

 private:
  static constexpr int kRowBytes = kTileK * 2;
  static constexpr int kPieces = kTileK / 8;                   // of a row
  static constexpr int kPassRows = kFewRowsThreads / kPieces;  // rows copied at once
  static constexpr int kPasses = kFewRowsTileRows / kPassRows;
  static constexpr int kStageBytes = FewRowsStageBytes<kRows, kTileK>();
  static_assert(kPassRows % 16 == 0);

  // The feature, of out, whose weights are this thread's row of the tile in this pass. With
  // silu_mul a warp's 16 rows are 8 of gate and the same 8 of up.
  __device__ int32_t Feature(const TileCursor& tile, int pass) const {
    const int32_t row = row_ + pass * kPassRows;
    if (!params_.silu_mul) return tile.row_tile * kFewRowsTileRows + row;
    return tile.row_tile * (kFewRowsTileRows / 2) + row / 16 * 8 + row % 8;
  }
  // kPassRows is a multiple of 16, so a thread's rows are all of gate or all of up.
  __device__ const Bf16* Address(int32_t feature, int32_t k) const {
    const int64_t up = params_.silu_mul && (row_ & 8) != 0 ? params_.features : 0;
    return params_.weight + (feature + up) * params_.in_features + k;
  }

  const FewRowsKernelParams& params_;
  const int32_t piece_;
  const int32_t row_;
  const uint32_t to_;
  const uint64_t policy_;
};

template <int kRows, int kTileK, int kStages>
__global__ void __launch_bounds__(kFewRowsThreads, 2)
    FewRowsKernel(const __grid_constant__ FewRowsKernelParams params) {
  constexpr int kStageBytes = FewRowsStageBytes<kRows, kTileK>();
  extern __shared__ __align__(128) uint8_t shared_memory[];
  const uint32_t shared = ptx::SharedAddress(shared_memory);
  const TileCopier<kRows, kTileK> copier(params, shared);
  const FewRowsPartition& partition = params.partition;
  const int32_t begin = partition.Begin(blockIdx.x);
  const int32_t count = partition.Begin(blockIdx.x + 1) - begin;

  // Weights depend on no other kernel: their first tiles are asked for before x is waited for. A
  // group of copies completes after those committed before it, so the first x then brings all of
  // these with it; where there is nothing to wait for each tile travels with its x.
  TileCursor ahead(partition, begin);
#pragma unroll
  for (int stage = 0; stage < kStages; ++stage) {
    if (stage < count) {
      copier.CopyWeight(ahead, stage);
      if (!params.dependent) copier.CopyX(ahead, stage);
      ahead.Next(partition);
    }
    if (!params.dependent) ptx::CommitCopies();
  }
  ptx::LaunchDependents();
  if (params.dependent) {
    TileCursor further = ahead;
    for (int i = kStages; i < min(count, kStages + params.l2_prefetch_tiles); ++i) {
      copier.PrefetchWeight(further);
      further.Next(partition);
    }
    ptx::WaitForPredecessor();
    TileCursor waited(partition, begin);
#pragma unroll
    for (int stage = 0; stage < kStages; ++stage) {
      if (stage < count) copier.CopyX(waited, stage);
      ptx::CommitCopies();
      waited.Next(partition);
    }
  }

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
        copier.CopyWeight(ahead, free_stage);
        copier.CopyX(ahead, free_stage);
        ahead.Next(partition);
      }
      ptx::CommitCopies();
    }
    MultiplyTile<kRows, kTileK>(shared + stage * kStageBytes, sums);
    if (tile.k_tile == partition.k_tiles - 1 || i == count - 1) {
      if (CombineShares(params, tile.row_tile, sums)) StoreSums(params, tile.row_tile, sums);
      sums.Clear();
    }
    tile.Next(partition);
    stage = stage == kStages - 1 ? 0 : stage + 1;
  }
}

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_LINEAR_FEW_ROWS_KERNEL_CUH_
