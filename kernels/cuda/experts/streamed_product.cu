// Expert products of few rows, which read each touched expert's weight once: it streams from memory
// to registers past shared memory, and tensor cores multiply it by up to sixteen rows at a time. A
// sum's order depends on the weight's shape alone.
//
// A product of tensor cores sums over 16 inputs in any order, as long as both operands have the
// same: lanes load 16 consecutive bytes of a row, inputs 8 t .. 8 t + 7 of 32 by lane t of a quad,
// and use them as two products' operands.

#include <cstdint>
#include <cuda_bf16.h>

#include "kernels/cuda/elementwise/launch.cuh"
#include "kernels/cuda/experts/stages.h"
#include "kernels/cuda/ptx.cuh"

namespace swaa::kernels::cuda {
namespace {

constexpr int kWarps = 4;  // of a block, which share the inputs of the same rows of the weight
constexpr int kThreads = kWarps * 32;
constexpr int kSteps = 2;                  // of 32 inputs, loaded at once
constexpr int kBatchInputs = kSteps * 32;  // of a warp
constexpr int kPairBlocks = 2;             // of eight pairs
static_assert(kPairBlocks * 8 == kStreamedTilePairs);

// Sixteen bytes that nobody reads again.
__device__ __forceinline__ uint4 LoadOnce(const Bf16* from) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from));
  return v;
}

// A lane's parts of a warp's kUnits * 16 rows of the weight: rows lane / 4 and lane / 4 + 8 of each
// unit.
template <int kUnits>
struct WeightBatch {
  uint4 v[kSteps][kUnits][2];
};

template <int kUnits>
struct WeightLoader {
  const Bf16* rows[kUnits][2];  // null beyond the weight

  __device__ __forceinline__ WeightBatch<kUnits> Load(int32_t k, int32_t in_features) const {
    WeightBatch<kUnits> batch;
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      const int32_t at = k + s * 32;
#pragma unroll
      for (int u = 0; u < kUnits; ++u) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const bool valid = at < in_features && rows[u][h] != nullptr;
          batch.v[s][u][h] = valid ? LoadOnce(rows[u][h] + at) : uint4{0, 0, 0, 0};
        }
      }
    }
    return batch;
  }
};

// The weight's rows of the block. Of gate_up, a unit is eight of gate and the same eight of up, so
// that a lane ends with both sums of a feature.
template <bool kGateUp, int kUnits>
__device__ __forceinline__ WeightLoader<kUnits> FindRows(const ExpertProduct& p, int32_t expert) {
  const ExpertPointers& pointers = p.experts[expert];
  const Bf16* weight = kGateUp ? pointers.gate_up : pointers.down;
  const int32_t g = static_cast<int32_t>(threadIdx.x % 32) / 4;
  WeightLoader<kUnits> loader;
#pragma unroll
  for (int u = 0; u < kUnits; ++u) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int32_t unit = static_cast<int32_t>(blockIdx.x) * kUnits + u;
      const int32_t feature = kGateUp ? unit * 8 + g : unit * 16 + h * 8 + g;
      const int64_t row = feature + (kGateUp ? int64_t{h} * p.out_features : 0);
      loader.rows[u][h] = feature < p.out_features ? weight + row * p.in_features : nullptr;
    }
  }
  return loader;
}

// Adds up the warps' sums and stores the block's features of its pairs.
template <bool kGateUp, int kUnits>
__device__ __forceinline__ void StoreSums(const ExpertProduct& p, const ExpertTile& tile,
                                          const float (&sums)[kUnits][kPairBlocks][4]) {
  constexpr int kWeightRows = kUnits * 16;
  constexpr int kSumStride = kWeightRows + 4;  // floats from pair to pair: banks of a store differ
  __shared__ float shared[kWarps][kStreamedTilePairs][kSumStride];
  const int32_t lane = static_cast<int32_t>(threadIdx.x % 32), warp = threadIdx.x / 32;
#pragma unroll
  for (int u = 0; u < kUnits; ++u) {
#pragma unroll
    for (int n = 0; n < kPairBlocks; ++n) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const int32_t pair = n * 8 + lane % 4 * 2 + c % 2;
        shared[warp][pair][u * 16 + c / 2 * 8 + lane / 4] = sums[u][n][c];
      }
    }
  }
  __syncthreads();
  constexpr int kFeatures = kGateUp ? kWeightRows / 2 : kWeightRows;  // of out
  constexpr int kEven = kFeatures * kStreamedTilePairs / kThreads;
  constexpr int kVector = kEven < 2 ? 2 : kEven;  // threads beyond the pairs have none
  const int32_t pair = static_cast<int32_t>(threadIdx.x) / (kFeatures / kVector);
  const int32_t begin = static_cast<int32_t>(threadIdx.x) % (kFeatures / kVector) * kVector;
  const int32_t feature = static_cast<int32_t>(blockIdx.x) * kFeatures + begin;
  if (pair >= tile.count || feature >= p.out_features) return;
  const auto total = [&](int32_t row) {
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) sum += shared[w][pair][row];
    return sum;
  };
  float values[kVector];
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    if constexpr (kGateUp) {
      const int32_t row = (begin + i) / 8 * 16 + (begin + i) % 8;
      const float gate = total(row);
      values[i] = __fdividef(gate, 1.0f + __expf(-gate)) * total(row + 8);
    } else {
      values[i] = total(begin + i);
    }
  }
  uint32_t packed[kVector / 2];
#pragma unroll
  for (int i = 0; i < kVector / 2; ++i) {
    packed[i] = ptx::PackBf16(values[2 * i], values[2 * i + 1]);
  }
  Bf16* to = p.out + int64_t{tile.first + pair} * p.out_features + feature;
#pragma unroll
  for (int i = 0; i < kVector / 2; ++i) reinterpret_cast<uint32_t*>(to)[i] = packed[i];
}

template <int kUnits>
__device__ __forceinline__ void Multiply(const WeightBatch<kUnits>& weight, int step, int block,
                                         const uint4& x, float (&sums)[kUnits][kPairBlocks][4]) {
#pragma unroll
  for (int u = 0; u < kUnits; ++u) {
    const uint4& low = weight.v[step][u][0];
    const uint4& high = weight.v[step][u][1];
    ptx::MultiplyAdd(sums[u][block], low.x, high.x, low.y, high.y, x.x, x.y);
    ptx::MultiplyAdd(sums[u][block], low.z, high.z, low.w, high.w, x.z, x.w);
  }
}

template <bool kGateUp, int kUnits>
__global__ void __launch_bounds__(kThreads, 4)
    StreamKernel(const __grid_constant__ ExpertProduct p) {
  if constexpr (kGateUp) {
    ptx::WaitForPredecessor();
    // Not before: whoever begins now may read the routes, which are complete.
    ptx::LaunchDependents();
  } else {
    ptx::LaunchDependents();
  }
  const bool idle = static_cast<int32_t>(blockIdx.y) >= *p.routes.tile_count;
  if (idle) {
    if constexpr (!kGateUp) ptx::WaitForPredecessor();
    return;
  }
  const ExpertTile tile = p.routes.tiles[blockIdx.y];
  const int32_t lane = static_cast<int32_t>(threadIdx.x % 32), warp = threadIdx.x / 32;
  const WeightLoader<kUnits> loader = FindRows<kGateUp, kUnits>(p, tile.expert);
  const int32_t in_features = p.in_features;
  int32_t k = warp * kBatchInputs + lane % 4 * 8;
  WeightBatch<kUnits> weight = loader.Load(k, in_features);
  // The weight is under way while the gate's product still runs.
  if constexpr (!kGateUp) ptx::WaitForPredecessor();
  const Bf16* x[kPairBlocks];  // of pair lane / 4 of each block of eight; null: there is none
#pragma unroll
  for (int n = 0; n < kPairBlocks; ++n) {
    const int32_t pair = n * 8 + lane / 4;
    x[n] = nullptr;
    if (pair < tile.count) {
      const int64_t row = kGateUp ? p.routes.rows[tile.first + pair] : tile.first + pair;
      x[n] = p.x + row * p.in_features;
    }
  }
  float sums[kUnits][kPairBlocks][4] = {};
  for (; k - lane % 4 * 8 < in_features; k += kWarps * kBatchInputs) {
    const WeightBatch<kUnits> next = loader.Load(k + kWarps * kBatchInputs, in_features);
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
#pragma unroll
      for (int n = 0; n < kPairBlocks; ++n) {
        if (n * 8 >= tile.count) break;
        const int32_t at = k + s * 32;
        const uint4 v = x[n] != nullptr && at < in_features
                            ? *reinterpret_cast<const uint4*>(x[n] + at)
                            : uint4{0, 0, 0, 0};
        Multiply(weight, s, n, v, sums);
      }
    }
    weight = next;
  }
  StoreSums<kGateUp, kUnits>(p, tile, sums);
}

template <bool kGateUp, int kUnits>
void LaunchStreamed(const ExpertProduct& product, const Launch& launch) {
  constexpr int32_t kFeatures = kUnits * (kGateUp ? 8 : 16);
  const dim3 grid((product.out_features + kFeatures - 1) / kFeatures, product.max_tiles);
  LaunchKernel(StreamKernel<kGateUp, kUnits>, grid, dim3(kThreads), launch, product);
}

// Of few tiles a warp takes fewer rows, so that more warps read.
constexpr int32_t kFewTiles = 16;

template <bool kGateUp>
void LaunchStreamed(const ExpertProduct& product, const Launch& launch) {
  if (product.max_tiles <= kFewTiles) {
    LaunchStreamed<kGateUp, 1>(product, launch);
  } else {
    LaunchStreamed<kGateUp, 2>(product, launch);
  }
}

}  // namespace

void StreamedExpertProduct(const ExpertProduct& product, const Launch& launch) {
  if (product.gate_up) {
    LaunchStreamed<true>(product, launch);
  } else {
    LaunchStreamed<false>(product, launch);
  }
}

}  // namespace swaa::kernels::cuda
