// What the kernels of skinny products share, however their tiles arrive: parameters, the product of
// a tile, and what becomes of a warp's sums.
//
// Eight warps share a tile of 128 output features: each multiplies its 16, the rows of A of
// mma.m16n8k16, by the rows of x, eight to a tile of B. A block that leaves a row of tiles to
// others as well writes its sums to memory; of those warps that share 16 features the last to
// arrive adds them up in the order of their blocks.

#ifndef SWAA_KERNELS_CUDA_LINEAR_SKINNY_TILE_CUH_
#define SWAA_KERNELS_CUDA_LINEAR_SKINNY_TILE_CUH_

#include <cstdint>
#include <cuda_bf16.h>

#include "kernels/cuda/linear/linear_arguments.h"
#include "kernels/cuda/linear/skinny_partition.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/types.h"

namespace swaa::kernels::cuda {

inline constexpr int kSkinnyThreads = 256;
inline constexpr int kSkinnyWarps = kSkinnyThreads / 32;
static_assert(kSkinnyTileRows == 16 * kSkinnyWarps);

// Where finished sums go.
struct SkinnyOutput {
  const float* bias;
  void* out;
  int32_t features;  // of out: half of the weight's with silu_mul
  int32_t rows;
  bool is_f32;
  bool silu_mul;
};

inline SkinnyOutput OutputOf(const LinearArguments& product) {
  return {.bias = product.bias,
          .out = product.out,
          .features = static_cast<int32_t>(product.silu_mul ? product.out_features / 2
                                                            : product.out_features),
          .rows = static_cast<int32_t>(product.rows),
          .is_f32 = product.out_type == DataType::kF32,
          .silu_mul = product.silu_mul};
}

struct SkinnyKernelParams {
  const Bf16* weight;
  const Bf16* x;
  SkinnyOutput out;
  float4* partials;    // [2 * blocks, warps, rows / 8, 32]
  uint32_t* arrivals;  // [row_tiles, warps]
  int64_t x_stride;
  int32_t in_features;
  SkinnyPartition partition;
  bool dependent;
  bool shares_x;  // as LinearArguments has it
};

template <int kRows, int kTileK>
constexpr int SkinnyStageBytes() {
  return (kSkinnyTileRows + kRows) * kTileK * 2;
}

// A position in the sequence of tiles.
struct TileCursor {
  int32_t row_tile;
  int32_t k_tile;

  __device__ TileCursor(const SkinnyPartition& partition, int32_t tile)
      : row_tile(tile / partition.k_tiles), k_tile(tile % partition.k_tiles) {}
  __device__ void Next(const SkinnyPartition& partition) {
    if (++k_tile == partition.k_tiles) {
      k_tile = 0;
      ++row_tile;
    }
  }
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
  const uint32_t b_row = stage + (kSkinnyTileRows + row) * kRowBytes;
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

__device__ __forceinline__ void Store(const SkinnyOutput& out, int32_t row, int32_t feature,
                                      float value) {
  const int64_t at = int64_t{row} * out.features + feature;
  if (out.is_f32) {
    static_cast<float*>(out.out)[at] = value;
  } else {
    static_cast<__nv_bfloat16*>(out.out)[at] = __float2bfloat16_rn(value);
  }
}

__device__ __forceinline__ float SiluMul(float gate, float up) {
  return gate / (1.0f + __expf(-gate)) * up;
}

// Writes the sums of `feature` at rows row and row + 1, and those of `second`, which with silu_mul
// is the row of the weight that holds up. Neither need lie within the output.
__device__ __forceinline__ void StoreFeatures(const SkinnyOutput& out, int32_t feature,
                                              int32_t second, int32_t row, const float (&sums)[4]) {
  if (feature >= out.features) return;
  const bool has_second = out.silu_mul || second < out.features;
  const float bias0 = out.bias != nullptr ? __ldg(out.bias + feature) : 0;
  const float bias1 = out.bias != nullptr && has_second ? __ldg(out.bias + second) : 0;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    if (row + i >= out.rows) continue;
    const float value0 = sums[i] + bias0;
    const float value1 = sums[2 + i] + bias1;
    if (out.silu_mul) {
      Store(out, row + i, feature, SiluMul(value0, value1));
    } else {
      Store(out, row + i, feature, value0);
      if (has_second) Store(out, row + i, second, value1);
    }
  }
}

// Writes a warp's finished sums.
template <int kRows>
__device__ __forceinline__ void StoreSums(const SkinnyOutput& out, int32_t row_tile,
                                          const WarpSums<kRows>& sums) {
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int per_warp = out.silu_mul ? 8 : 16;
  const int32_t feature = (row_tile * kSkinnyWarps + warp) * per_warp + lane / 4;
  const int32_t second = out.silu_mul ? out.features + feature : feature + 8;
#pragma unroll
  for (int j = 0; j < WarpSums<kRows>::kRowTiles; ++j) {
    StoreFeatures(out, feature, second, j * 8 + lane % 4 * 2, sums.values[j]);
  }
}

// Hands a warp's share of a row of tiles in. True for the last of those that share it, whose sums
// are then those of all.
template <int kRows>
__device__ __forceinline__ bool CombineShares(const SkinnyKernelParams& params, int32_t row_tile,
                                              WarpSums<kRows>& sums) {
  constexpr int kRowTiles = WarpSums<kRows>::kRowTiles;
  const int32_t first = params.partition.FirstBlock(row_tile);
  const int32_t last = params.partition.LastBlock(row_tile);
  if (first == last) return true;
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const auto share = [&](int32_t block) {
    const int64_t slot = PartialSlot(block, first);
    return params.partials + (slot * kSkinnyWarps + warp) * (kRowTiles * 32) + lane;
  };
  float4* mine = share(blockIdx.x);
#pragma unroll
  for (int j = 0; j < kRowTiles; ++j) {
    const float(&v)[4] = sums.values[j];
    if (j * 8 < params.out.rows) __stcg(mine + j * 32, make_float4(v[0], v[1], v[2], v[3]));
  }
  __syncwarp();
  uint32_t* arrivals = params.arrivals + row_tile * kSkinnyWarps + warp;
  uint32_t arrived = 0;
  // Releases what the warp has written and acquires what those before it have.
  if (lane == 0) arrived = ptx::AddAcquireRelease(arrivals, 1);
  arrived = __shfl_sync(0xffffffffu, arrived, 0);
  __syncwarp();
  if (arrived != static_cast<uint32_t>(last - first)) return false;
  if (lane == 0) *arrivals = 0;  // for the next launch
  sums.Clear();
  // Eight loads in flight a thread.
#pragma unroll(8 / kRowTiles)
  for (int32_t block = first; block <= last; ++block) {
    const float4* theirs = share(block);
#pragma unroll
    for (int j = 0; j < kRowTiles; ++j) {
      if (j * 8 >= params.out.rows) continue;
      const float4 v = __ldcg(theirs + j * 32);
      sums.values[j][0] += v.x;
      sums.values[j][1] += v.y;
      sums.values[j][2] += v.z;
      sums.values[j][3] += v.w;
    }
  }
  return true;
}

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_LINEAR_SKINNY_TILE_CUH_
