// Decode attention: the end of a (sequence, KV head). The block's four warps merge what they have;
// if other blocks hold parts as well, the last block to arrive merges those and writes the output.
// No second launch, no waiting.

#ifndef SWAA_KERNELS_CUDA_ATTENTION_DECODE_MERGE_CUH_
#define SWAA_KERNELS_CUDA_ATTENTION_DECODE_MERGE_CUH_

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/attention/decode_tile.cuh"

namespace swaa::kernels::cuda {

constexpr int kDecodeThreads = 32 * kDecodeWarps;  // that multiply and merge
constexpr int kDecodeBarrier = 1;                  // of those threads

template <int kDim, int kRows>
struct DecodeMergeMemory {
  float o[kDecodeWarps][kRows][kDim + 8];
  float m[kDecodeWarps][kRows], l[kDecodeWarps][kRows];
  int is_last;
};

// Dimensions of a row that a lane merges: two for 64, four for 96 (24 lanes) and 128.
template <int kDim>
struct LaneVector {
  static constexpr int kSize = kDim == 64 ? 2 : 4;
  static constexpr int kLanes = kDim / kSize;
  using Type = std::conditional_t<kSize == 4, float4, float2>;
};

__device__ __forceinline__ void AddScaled(float4& a, float f, float4 b) {
  a.x += f * b.x, a.y += f * b.y, a.z += f * b.z, a.w += f * b.w;
}
__device__ __forceinline__ void AddScaled(float2& a, float f, float2 b) {
  a.x += f * b.x, a.y += f * b.y;
}
__device__ __forceinline__ void StoreScaled(Bf16* out, float2 v, float f) {
  *reinterpret_cast<uint32_t*>(out) = ptx::PackBf16(v.x * f, v.y * f);
}
__device__ __forceinline__ void StoreScaled(Bf16* out, float4 v, float f) {
  *reinterpret_cast<uint2*>(out) =
      make_uint2(ptx::PackBf16(v.x * f, v.y * f), ptx::PackBf16(v.z * f, v.w * f));
}

// Leaves the warp's result in shared memory.
template <int kDim, int kRows>
__device__ __forceinline__ void LeaveWarpResult(DecodeState<kDim, kRows>& state,
                                                DecodeMergeMemory<kDim, kRows>& sm, int group,
                                                int warp, int lane) {
  const int t = lane & 3;
#pragma unroll
  for (int h = 0; h < kRowHalves<kRows>; ++h) {
    const int row = (lane >> 2) + 8 * h;
    float l = state.l[h];
    l += __shfl_xor_sync(~0u, l, 1);
    l += __shfl_xor_sync(~0u, l, 2);
    if (row >= group) continue;
#pragma unroll
    for (int j = 0; j < kDim / 8; ++j)
      *reinterpret_cast<float2*>(&sm.o[warp][row][8 * j + 2 * t]) =
          make_float2(state.o[j][2 * h], state.o[j][2 * h + 1]);
    if (t == 0) sm.m[warp][row] = state.m[h], sm.l[warp][row] = l;
  }
}

// One row of an item from `parts` partial results; part(i) is the i-th. Called by a warp. Order and
// rounding depend on nothing but the plan.
//
// Memory is busy then with the weights of the products that follow, and every wait for it long:
// what the first parts hold is asked for at once.
template <int kDim, class F>
__device__ __forceinline__ void MergeParts(F&& part, int parts, int row, Bf16* out, int lane,
                                           float scale_log2) {
  using Lane = LaneVector<kDim>;
  using Vector = typename Lane::Type;
  constexpr int kEarly = 18;  // as many as 8 KV heads of one sequence have on 132 multiprocessors
  constexpr int kBatch = 8;   // of the others
  const int column = min(lane, Lane::kLanes - 1) * Lane::kSize;
  const auto load = [&](int i) {
    return __ldcg(reinterpret_cast<const Vector*>(&part(min(i, parts - 1)).o[row][column]));
  };
  const auto load_maximum = [&](int i) { return i < parts ? __ldcg(&part(i).m[row]) : -INFINITY; };
  const auto load_sum = [&](int i) { return i < parts ? __ldcg(&part(i).l[row]) : 0.f; };
  const float m = load_maximum(lane), l = load_sum(lane);
  Vector early[kEarly];
#pragma unroll
  for (int i = 0; i < kEarly; ++i) early[i] = load(i);
  float top = m;
#pragma unroll 1
  for (int i = 32 + lane; i < parts; i += 32) top = fmaxf(top, load_maximum(i));
#pragma unroll
  for (int d = 16; d > 0; d /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, d));
  const float f = ptx::Exp2((m - top) * scale_log2);
  float sum = f * l;
#pragma unroll 1
  for (int i = 32 + lane; i < parts; i += 32)
    sum += ptx::Exp2((load_maximum(i) - top) * scale_log2) * load_sum(i);
  Vector value = {};
#pragma unroll
  for (int i = 0; i < kEarly; ++i) AddScaled(value, __shfl_sync(~0u, f, i), early[i]);
#pragma unroll 1
  for (int first = kEarly; first < parts; first += kBatch) {
    Vector v[kBatch];
    float maxima[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      v[i] = load(first + i);
      maxima[i] = load_maximum(first + i);
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i)
      AddScaled(value, ptx::Exp2((maxima[i] - top) * scale_log2), v[i]);
  }
#pragma unroll
  for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(~0u, sum, d);
  if (lane < Lane::kLanes) StoreScaled(out + row * kDim, value, 1.f / sum);
}

// What a block must know of its piece to find the other holders of an item's parts.
struct DecodePiece {
  int tiles, total, blocks;

  // The line is cut at total * b / blocks: the block after the last cut at or before `at`.
  __device__ __forceinline__ int Holder(int at) const {
    if (total < (1 << 23))  // no division of 64 bits where 32 do: it would stand before every merge
      return ((at + 1u) * blocks - 1u) / static_cast<uint32_t>(total);
    return static_cast<int>(((at + 1ull) * blocks - 1ull) / static_cast<uint64_t>(total));
  }
};

// Ends the item under the cursor: the block's `count` tiles of it are in the warps' states. Called
// by all kDecodeThreads, which must meet again before the next.
template <int kDim, int kRows>
__device__ __forceinline__ void FinishItem(const DecodeParams& p, const DecodePiece& piece,
                                           const DecodeCursor& cursor, int count,
                                           DecodeState<kDim, kRows>& state,
                                           DecodeMergeMemory<kDim, kRows>& sm, int warp, int lane) {
  using Lane = LaneVector<kDim>;
  using Vector = typename Lane::Type;
  LeaveWarpResult<kDim, kRows>(state, sm, p.group, warp, lane);
  ptx::NamedSync<kDecodeThreads>(kDecodeBarrier);
  const DecodeRecord& record = cursor.record;
  const bool whole = count == record.tiles;
  DecodePartial& mine = p.partials[blockIdx.x * 2 + (cursor.tile > 0 ? 0 : 1)];
  const int column = min(lane, Lane::kLanes - 1) * Lane::kSize;
  Bf16* out = p.out +
              (static_cast<int64_t>(record.row) * p.heads + cursor.head * p.group) * kDim +
              column;
  for (int r = warp; r < p.group; r += kDecodeWarps) {  // a warp merges a row
    const float top = fmaxf(fmaxf(sm.m[0][r], sm.m[1][r]), fmaxf(sm.m[2][r], sm.m[3][r]));
    const float base = top == -INFINITY ? 0.f : top;
    float sum = 0;
    Vector value = {};
#pragma unroll
    for (int w = 0; w < kDecodeWarps; ++w) {
      const float f = ptx::Exp2((sm.m[w][r] - base) * p.scale_log2);
      sum += f * sm.l[w][r];
      AddScaled(value, f, *reinterpret_cast<const Vector*>(&sm.o[w][r][column]));
    }
    if (whole) {
      if (lane < Lane::kLanes) StoreScaled(out + r * kDim, value, 1.f / sum);
    } else {
      if (lane < Lane::kLanes) __stcg(reinterpret_cast<Vector*>(&mine.o[r][column]), value);
      if (lane == 0) __stcg(&mine.m[r], top), __stcg(&mine.l[r], sum);
    }
  }
  if (whole) return;
  const int end = record.before * p.kv_heads + (cursor.head + 1) * record.weight;  // on the line
  const int first_block = piece.Holder(end - record.tiles), last_block = piece.Holder(end - 1);
  ptx::NamedSync<kDecodeThreads>(kDecodeBarrier);
  if (threadIdx.x == 0) {
    const uint32_t last = last_block - first_block;
    sm.is_last =
        ptx::CountArrival(&p.arrivals[cursor.sequence * p.kv_heads + cursor.head], last) == last;
  }
  ptx::NamedSync<kDecodeThreads>(kDecodeBarrier);
  if (!sm.is_last) return;
  auto part = [&](int i) -> const DecodePartial& {
    return p.partials[(first_block + i) * 2 + (i == 0 ? 1 : 0)];
  };
  for (int r = warp; r < p.group; r += kDecodeWarps)
    MergeParts<kDim>(part, last_block - first_block + 1, r, out, lane, p.scale_log2);
}

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_ATTENTION_DECODE_MERGE_CUH_
