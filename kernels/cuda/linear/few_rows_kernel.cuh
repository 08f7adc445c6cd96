// The kernel of the product for few rows; few_rows_product.h says what it computes,
// few_rows_partition.h how the weight is dealt to blocks.
//
// Eight warps share a tile of 128 output features: each multiplies its 16, the rows of A of
// mma.m16n8k16, by the rows of x, eight to a tile of B. Tiles of weight and x pass through a ring
// of kStages in shared memory by cp.async. A block that leaves a row of tiles to others as well
// writes its sums to memory; of those warps that share 16 features the last to arrive adds them up
// in the order of their blocks. The next kernel may start as soon as the first copies are on their
// way: two blocks of different launches fit a multiprocessor.

#ifndef SWAA_KERNELS_CUDA_LINEAR_FEW_ROWS_KERNEL_CUH_
#define SWAA_KERNELS_CUDA_LINEAR_FEW_ROWS_KERNEL_CUH_

#include <cstdint>
#include <cuda_bf16.h>

#include "kernels/cuda/linear/few_rows_partition.h"
#include "kernels/cuda/linear/few_rows_ptx.cuh"
#include "kernels/types.h"

namespace swaa::kernels::cuda {

inline constexpr int kFewRowsThreads = 256;
inline constexpr int kFewRowsWarps = kFewRowsThreads / 32;
static_assert(kFewRowsTileRows == 16 * kFewRowsWarps);

struct FewRowsKernelParams {
  const Bf16* weight;
  const Bf16* x;
  const float* bias;
  void* out;
  float4* partials;    // [2 * blocks, warps, rows / 8, 32]
  uint32_t* arrivals;  // [row_tiles, warps]
  int64_t x_stride;
  int32_t features;  // of out: half of the weight's with silu_mul
  int32_t in_features;
  int32_t rows;
  int32_t l2_prefetch_tiles;
  FewRowsPartition partition;
  bool out_is_f32;
  bool silu_mul;
  bool dependent;
};

template <int kRows, int kTileK>
constexpr int FewRowsStageBytes() {
  return (kFewRowsTileRows + kRows) * kTileK * 2;
}

// A position in the sequence of tiles.
struct TileCursor {
  int32_t row_tile;
  int32_t k_tile;

  __device__ TileCursor(const FewRowsPartition& partition, int32_t tile)
      : row_tile(tile / partition.k_tiles), k_tile(tile % partition.k_tiles) {}
  __device__ void Next(const FewRowsPartition& partition) {
    if (++k_tile == partition.k_tiles) {
      k_tile = 0;
      ++row_tile;
    }
  }
};

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

// The sums of a warp: 16 features by kRows rows of x. Element [j][2 h + i] is feature 8 h + lane /
// 4 and row 8 j + 2 (lane % 4) + i.
template <int kRows>
struct WarpSums {
  static constexpr int kRowTiles = kRows / 8;
  float values[kRowTiles][4];

  __device__ void Clear() {
#pragma unroll
    for (int j = 0; j < kRowTiles; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) values[j][i] = 0;
    }
  }
};

template <int kRows, int kTileK>
__device__ __forceinline__ void MultiplyTile(uint32_t stage, WarpSums<kRows>& sums) {
  constexpr int kRowBytes = kTileK * 2;
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int matrix = lane / 8;
  const int row = lane % 8;
  const uint32_t a_row = stage + (warp * 16 + (matrix & 1) * 8 + row) * kRowBytes;
  const uint32_t b_row = stage + (kFewRowsTileRows + row) * kRowBytes;
#pragma unroll
  for (int k = 0; k < kTileK / 8; k += 4) {  // 16-byte pieces; two steps of the product
    uint32_t a[2][4];
    ptx::LoadMatrix4(a[0], a_row + (((k + (matrix >> 1)) ^ row) * 16));
    ptx::LoadMatrix4(a[1], a_row + (((k + 2 + (matrix >> 1)) ^ row) * 16));
#pragma unroll
    for (int j = 0; j < kRows / 8; ++j) {
      uint32_t b[4];
      ptx::LoadMatrix4(b, b_row + j * 8 * kRowBytes + (((k + matrix) ^ row) * 16));
      ptx::MultiplyAdd(sums.values[j], a[0], b[0], b[1]);
      ptx::MultiplyAdd(sums.values[j], a[1], b[2], b[3]);
    }
  }
}

__device__ __forceinline__ void Store(const FewRowsKernelParams& params, int32_t row,
                                      int32_t feature, float value) {
  const int64_t at = int64_t{row} * params.features + feature;
  if (params.out_is_f32) {
    static_cast<float*>(params.out)[at] = value;
  } else {
    static_cast<__nv_bfloat16*>(params.out)[at] = __float2bfloat16_rn(value);
  }
}

__device__ __forceinline__ float SiluMul(float gate, float up) {
  return gate / (1.0f + __expf(-gate)) * up;
}

// Writes a warp's finished sums.
template <int kRows>
__device__ __forceinline__ void StoreSums(const FewRowsKernelParams& params, int32_t row_tile,
                                          const WarpSums<kRows>& sums) {
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int per_warp = params.silu_mul ? 8 : 16;
  const int32_t feature = (row_tile * kFewRowsWarps + warp) * per_warp + lane / 4;
  if (feature >= params.features) return;
  const int32_t second = params.silu_mul ? params.features + feature : feature + 8;  // of the bias
  const bool has_second = params.silu_mul || second < params.features;
  const float bias0 = params.bias != nullptr ? __ldg(params.bias + feature) : 0;
  const float bias1 = params.bias != nullptr && has_second ? __ldg(params.bias + second) : 0;
#pragma unroll
  for (int j = 0; j < WarpSums<kRows>::kRowTiles; ++j) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int32_t row = j * 8 + lane % 4 * 2 + i;
      if (row >= params.rows) continue;
      const float value0 = sums.values[j][i] + bias0;
      const float value1 = sums.values[j][2 + i] + bias1;
      if (params.silu_mul) {
        Store(params, row, feature, SiluMul(value0, value1));
      } else {
        Store(params, row, feature, value0);
        if (has_second) Store(params, row, second, value1);
      }
    }
  }
}

// Hands a warp's share of a row of tiles in. True for the last of those that share it, whose sums
// are then those of all.
template <int kRows>
__device__ __forceinline__ bool CombineShares(const FewRowsKernelParams& params, int32_t row_tile,
                                              WarpSums<kRows>& sums) {
  constexpr int kRowTiles = WarpSums<kRows>::kRowTiles;
  const int32_t first = params.partition.FirstBlock(row_tile);
  const int32_t last = params.partition.LastBlock(row_tile);
  if (first == last) return true;
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const auto share = [&](int32_t block) {
    const int64_t slot = PartialSlot(block, first);
    return params.partials + (slot * kFewRowsWarps + warp) * (kRowTiles * 32) + lane;
  };
  float4* mine = share(blockIdx.x);
#pragma unroll
  for (int j = 0; j < kRowTiles; ++j) {
    const float(&v)[4] = sums.values[j];
    if (j * 8 < params.rows) __stcg(mine + j * 32, make_float4(v[0], v[1], v[2], v[3]));
  }
  __threadfence();
  __syncwarp();
  uint32_t* arrivals = params.arrivals + row_tile * kFewRowsWarps + warp;
  uint32_t arrived = 0;
  if (lane == 0) arrived = atomicAdd(arrivals, 1u);
  arrived = __shfl_sync(0xffffffffu, arrived, 0);
  if (arrived != static_cast<uint32_t>(last - first)) return false;
  __threadfence();
  if (lane == 0) *arrivals = 0;  // for the next launch
  sums.Clear();
  // Eight loads in flight a thread.
#pragma unroll(8 / kRowTiles)
  for (int32_t block = first; block <= last; ++block) {
    const float4* theirs = share(block);
#pragma unroll
    for (int j = 0; j < kRowTiles; ++j) {
      if (j * 8 >= params.rows) continue;
      const float4 v = __ldcg(theirs + j * 32);
      sums.values[j][0] += v.x;
      sums.values[j][1] += v.y;
      sums.values[j][2] += v.z;
      sums.values[j][3] += v.w;
    }
  }
  return true;
}

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
