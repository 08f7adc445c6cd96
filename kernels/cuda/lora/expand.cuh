// The second half of adapters' products: out += up * sums for tiles of rows. A warp takes 32
// outputs, in an order in which each lane ends with eight that lie together. The sums are split
// into two bf16 numbers each, so that little of them is lost.

#ifndef SWAA_KERNELS_CUDA_LORA_EXPAND_CUH_
#define SWAA_KERNELS_CUDA_LORA_EXPAND_CUH_

#include <cstdint>
#include <cuda_bf16.h>

#include "kernels/cuda/elementwise/vector8.cuh"
#include "kernels/cuda/lora/lora.h"
#include "kernels/cuda/lora/shrink.cuh"
#include "kernels/cuda/ptx.cuh"

namespace swaa::kernels::cuda {

inline constexpr int kWarpOutputs = 32;

// Operand A of 16 rows by 16 ranks: the bf16 numbers next to the sums, and what they lack.
struct SplitSums {
  uint32_t near[4];
  uint32_t rest[4];
};

// Ranks 4 t .. 4 t + 3 of a row by lane t of a quad, of all splits.
__device__ __forceinline__ float4 AddSplits(const LoraArguments& p, int32_t row, int32_t rank) {
  float4 total = {0, 0, 0, 0};
  const float* at = p.sums + int64_t{row} * p.rows.splits * kMaxLoraRanks + rank;
#pragma unroll 4
  for (int32_t split = 0; split < p.rows.splits; ++split) {
    const float4 v = *reinterpret_cast<const float4*>(at + int64_t{split} * kMaxLoraRanks);
    total = {total.x + v.x, total.y + v.y, total.z + v.z, total.w + v.w};
  }
  return total;
}

__device__ __forceinline__ void Split(float first, float second, uint32_t* near, uint32_t* rest) {
  const float near_first = RoundedTo<Bf16>(first), near_second = RoundedTo<Bf16>(second);
  *near = ptx::PackBf16(near_first, near_second);
  *rest = ptx::PackBf16(first - near_first, second - near_second);
}

__device__ __forceinline__ SplitSums LoadSums(const LoraArguments& p, const LoraTile& tile,
                                              int32_t rank) {
  const int32_t lane = static_cast<int32_t>(threadIdx.x % 32);
  SplitSums sums;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int32_t row = lane / 4 + h * 8;
    float4 v = {0, 0, 0, 0};
    if (row < tile.count) v = AddSplits(p, tile.first + row, rank + lane % 4 * 4);
    Split(v.x, v.y, &sums.near[h], &sums.rest[h]);
    Split(v.z, v.w, &sums.near[h + 2], &sums.rest[h + 2]);
  }
  return sums;
}

// Column n of block j of eight is output n / 2 * 8 + j * 2 + n % 2 of the warp's.
__device__ __forceinline__ int32_t OutputOf(int32_t block, int32_t column) {
  return column / 2 * 8 + block * 2 + column % 2;
}

// added += up * sums for the outputs of the part among the warp's.
__device__ __forceinline__ void AddPart(const LoraArguments& p, const LoraTile& tile,
                                        const LoraDevicePart& part, int32_t first_output,
                                        float (&added)[4][4]) {
  const int32_t lane = static_cast<int32_t>(threadIdx.x % 32);
  for (int32_t rank = 0; rank < part.rank; rank += kLoraRankBlock) {
    const SplitSums sums = LoadSums(p, tile, part.first_rank + rank);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int32_t output = first_output + OutputOf(j, lane / 4) - part.first_output;
      uint2 up = {0, 0};
      if (output >= 0 && output < part.outputs) {
        up = *reinterpret_cast<const uint2*>(part.up + int64_t{output} * part.rank + rank +
                                             lane % 4 * 4);
      }
      ptx::MultiplyAdd(added[j], sums.near, up.x, up.y);
      ptx::MultiplyAdd(added[j], sums.rest, up.x, up.y);
    }
  }
}

__device__ __forceinline__ bool Meets(const LoraDevicePart& part, int32_t first_output) {
  return first_output < part.first_output + part.outputs &&
         part.first_output < first_output + kWarpOutputs;
}

// A lane's outputs of the warp's belong to one part or none.
__device__ __forceinline__ bool IsInPart(const LoraDeviceWeight& weight, int32_t output) {
  for (int32_t i = 0; i < weight.num_parts; ++i) {
    const int32_t inside = output - weight.parts[i].first_output;
    if (inside >= 0 && inside < weight.parts[i].outputs) return true;
  }
  return false;
}

// What the tile's adapter adds to the 32 outputs from first_output on: of lane l, rows l / 4 and
// l / 4 + 8, outputs l % 4 * 8 + 2 j and the next in added[j][0], [1] and [2], [3].
struct LoraAddition {
  float added[4][4] = {};
  bool any = false;  // for this lane's outputs

  __device__ __forceinline__ LoraAddition(const LoraArguments& p, const LoraTile& tile,
                                          const LoraDeviceWeight* weight, int32_t first_output) {
    if (weight == nullptr) return;
    for (int32_t i = 0; i < weight->num_parts; ++i) {
      if (Meets(weight->parts[i], first_output)) {
        AddPart(p, tile, weight->parts[i], first_output, added);
      }
    }
    any = IsInPart(*weight, first_output + static_cast<int32_t>(threadIdx.x % 4) * 8);
  }

  __device__ __forceinline__ void AddTo(int half, Vector8* v) const {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      v->v[2 * j] += added[j][2 * half];
      v->v[2 * j + 1] += added[j][2 * half + 1];
    }
  }
};

// out += up * sums for 32 outputs of the tile's rows. By a warp.
__device__ __forceinline__ void Expand(const LoraArguments& p, const LoraTile& tile,
                                       int32_t first_output) {
  const int32_t lane = static_cast<int32_t>(threadIdx.x % 32);
  const LoraAddition addition(p, tile, WeightOf(p, tile), first_output);
  if (!addition.any) return;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int32_t row = lane / 4 + half * 8;
    if (row >= tile.count) continue;
    Bf16* out =
        p.out + p.rows.rows[tile.first + row] * p.out_features + first_output + lane % 4 * 8;
    Vector8 v = Load8(out);
    addition.AddTo(half, &v);
    Store8(out, v);
  }
}

// gated = silu(gate) * up for 32 columns of the tile's rows, what its adapter adds to both added
// first. By a warp.
__device__ __forceinline__ void ExpandGated(const LoraArguments& p, const LoraTile& tile,
                                            int32_t first_column) {
  const int32_t lane = static_cast<int32_t>(threadIdx.x % 32);
  const auto width = static_cast<int32_t>(p.out_features / 2);
  const LoraDeviceWeight* weight = WeightOf(p, tile);
  const LoraAddition to_gate(p, tile, weight, first_column);
  const LoraAddition to_up(p, tile, weight, width + first_column);
  const int32_t column = first_column + lane % 4 * 8;
  if (column >= width) return;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int32_t row = lane / 4 + half * 8;
    if (row >= tile.count) continue;
    const int64_t at = p.rows.rows[tile.first + row];
    const Bf16* from = p.out + at * p.out_features + column;
    Vector8 gate = Load8(from), up = Load8(from + width);
    to_gate.AddTo(half, &gate);
    to_up.AddTo(half, &up);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      gate.v[j] = __fdividef(gate.v[j], 1.0f + __expf(-gate.v[j])) * up.v[j];
    }
    Store8(p.gated + at * width + column, gate);
  }
}

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_LORA_EXPAND_CUH_
