// Decode attention: the end of a (sequence, KV head). The block's four warps merge what they have,
// each some rows. If other blocks hold parts as well, they leave theirs in memory, and the block
// with the first part waits for them, adds them and writes the output: no second launch, and no
// counter, whose round trips would be long while the next kernel's weights stream. Waiting is safe:
// all blocks of a launch are resident at once, and a block waits when it has done all else.

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

// A part in memory is the inverse of its bits, and zero what is not there yet: no arithmetic makes
// the NaN whose bits are all ones.
__device__ __forceinline__ float Inverted(float x) { return __uint_as_float(~__float_as_uint(x)); }
__device__ __forceinline__ float2 Inverted(float2 v) { return {Inverted(v.x), Inverted(v.y)}; }
__device__ __forceinline__ float4 Inverted(float4 v) {
  return {Inverted(v.x), Inverted(v.y), Inverted(v.z), Inverted(v.w)};
}
__device__ __forceinline__ bool IsThere(float2 v) {
  return __float_as_uint(v.x) != 0 && __float_as_uint(v.y) != 0;
}
__device__ __forceinline__ bool IsThere(float4 v) {
  return IsThere(make_float2(v.x, v.y)) && IsThere(make_float2(v.z, v.w));
}

// Adds a row of `count` parts to an item's first one, of which this warp has the maximum, the sum,
// and each lane the values from `column`. Waits for them, and leaves zeros. Order and rounding
// depend on nothing but the plan.
template <int kDim>
__device__ __forceinline__ void AddParts(DecodePartial* parts, int count, int row, int column,
                                         int lane, float scale_log2,
                                         typename LaneVector<kDim>::Type& value, float& maximum,
                                         float& sum) {
  using Vector = typename LaneVector<kDim>::Type;
  constexpr int kAtOnce = 18;  // more than a KV head of one sequence has on 132 multiprocessors
#pragma unroll 1
  for (int first = 0; first < count; first += kAtOnce) {
    const auto values = [&](int i) {
      return reinterpret_cast<Vector*>(&parts[min(first + i, count - 1)].o[row][column]);
    };
    float2* const of_lane =
        reinterpret_cast<float2*>(parts[min(first + min(lane, kAtOnce - 1), count - 1)].m_l[row]);
    Vector v[kAtOnce];
    float2 m_l;
    bool there;
    do {
      m_l = ptx::LoadRelaxed(of_lane);
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) v[i] = ptx::LoadRelaxed(values(i));
      there = IsThere(m_l);
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) there &= IsThere(v[i]);
    } while (!__all_sync(~0u, there));
    __stcg(of_lane, float2{});
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) __stcg(values(i), Vector{});
    m_l = Inverted(m_l);
    float top = fmaxf(maximum, m_l.x);
#pragma unroll
    for (int d = 16; d > 0; d /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, d));
    const bool has_part = lane < min(kAtOnce, count - first);
    const float f = has_part ? ptx::Exp2((m_l.x - top) * scale_log2) : 0;
    const float scale = ptx::Exp2((maximum - top) * scale_log2);
    maximum = top;
    float added = f * m_l.y;
#pragma unroll
    for (int d = 16; d > 0; d /= 2) added += __shfl_xor_sync(~0u, added, d);
    sum = sum * scale + added;
    Vector total = {};
    AddScaled(total, scale, value);
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) AddScaled(total, __shfl_sync(~0u, f, i), Inverted(v[i]));
    value = total;
  }
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
  const int end = record.before * p.kv_heads + (cursor.head + 1) * record.weight;  // on the line
  const int others = piece.Holder(end - 1) - blockIdx.x;  // that hold the rest, behind this one
  const int column = min(lane, Lane::kLanes - 1) * Lane::kSize;
  Bf16* out =
      p.out + (static_cast<int64_t>(record.row) * p.heads + cursor.head * p.group) * kDim + column;
  for (int r = warp; r < p.group; r += kDecodeWarps) {  // a warp merges a row
    float top = fmaxf(fmaxf(sm.m[0][r], sm.m[1][r]), fmaxf(sm.m[2][r], sm.m[3][r]));
    float sum = 0;
    Vector value = {};
#pragma unroll
    for (int w = 0; w < kDecodeWarps; ++w) {
      const float f = ptx::Exp2((sm.m[w][r] - top) * p.scale_log2);
      sum += f * sm.l[w][r];
      AddScaled(value, f, *reinterpret_cast<const Vector*>(&sm.o[w][r][column]));
    }
    if (cursor.tile > 0) {
      DecodePartial& part = p.partials[blockIdx.x];
      __stcg(reinterpret_cast<Vector*>(&part.o[r][column]), Inverted(value));
      if (lane == 0)
        __stcg(reinterpret_cast<float2*>(part.m_l[r]), Inverted(make_float2(top, sum)));
      continue;
    }
    if (!whole) {
      AddParts<kDim>(p.partials + blockIdx.x + 1, others, r, column, lane, p.scale_log2, value, top,
                     sum);
    }
    if (lane < Lane::kLanes) StoreScaled(out + r * kDim, value, 1.f / sum);
  }
}

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_ATTENTION_DECODE_MERGE_CUH_
