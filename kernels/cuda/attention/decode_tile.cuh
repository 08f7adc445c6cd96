// Decode attention: where a block is on its piece of the line, and one warp's work on 16 keys of a
// tile. Shared by both families, which differ in how keys and values come to shared memory.

#ifndef SWAA_KERNELS_CUDA_ATTENTION_DECODE_TILE_CUH_
#define SWAA_KERNELS_CUDA_ATTENTION_DECODE_TILE_CUH_

#include <cstdint>

#include "kernels/cuda/attention/decode_params.h"
#include "kernels/cuda/ptx.cuh"

namespace swaa::kernels::cuda {

constexpr int kDecodeWarps = 4;  // that multiply; each takes 16 keys of every tile

// The query heads of a KV head are rows of the products: 4, 8 or 16 of them. Up to 8 fill the upper
// half of a fragment only.
template <int kRows>
constexpr int kRowHalves = kRows > 8 ? 2 : 1;

// What the plan's kernel wrote, 16 bytes at a time and from L2: an L1 may still hold the step
// before.
template <class T>
__device__ __forceinline__ T LoadPlanned(const T* from) {
  static_assert(sizeof(T) % 16 == 0 && alignof(T) == 16);
  T value;
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(T) / 16); ++i) {
    const uint4 words = __ldcg(reinterpret_cast<const uint4*>(from) + i);
    memcpy(reinterpret_cast<char*>(&value) + 16 * i, &words, 16);
  }
  return value;
}

// Where a block is on the line.
struct DecodeCursor {
  int sequence, head, tile;
  DecodeRecord record;

  __device__ explicit DecodeCursor(const DecodeBlock& block)
      : sequence(block.sequence), head(block.head), tile(block.tile), record(block.record) {}

  // To the first tile of the next (sequence, KV head). There is one.
  __device__ __forceinline__ void Next(const DecodePlan& plan, int kv_heads) {
    tile = 0;
    if (++head < kv_heads) return;
    head = 0;
    record = LoadPlanned(&plan.records[++sequence]);
  }
};

// The plan of the launch's layer. Known before the kernel before has ended: see LaunchDecodePlan.
__device__ __forceinline__ const DecodePlan& PlanOfLayer(const DecodeParams& p) {
  return p.plans[__ldcg(LayerClasses(p.step) + p.layer)];
}

// A warp's queries as A operands, and what it has accumulated.
template <int kDim, int kRows>
struct DecodeState {
  static constexpr int kHalves = kRowHalves<kRows>;
  uint32_t q[kDim / 16][2 * kHalves];  // rows g (and g + 8), columns 16 i + 2 t (and + 8)
  float o[kDim / 8][4];
  float m[kHalves], l[kHalves];

  __device__ __forceinline__ void Begin(const DecodeParams& p, int row, int kv_head, int lane) {
    const int g = lane >> 2, t = lane & 3;
    const Bf16* first = p.q + row * p.q_stride + static_cast<int64_t>(kv_head) * p.group * kDim;
#pragma unroll
    for (int h = 0; h < kHalves; ++h) {
      const int head = g + 8 * h;
      const auto* from = reinterpret_cast<const uint32_t*>(first + head * kDim);
#pragma unroll
      for (int i = 0; i < kDim / 16; ++i)
#pragma unroll
        for (int e = 0; e < 2; ++e) q[i][2 * h + e] = head < p.group ? from[8 * i + 4 * e + t] : 0;
      m[h] = -INFINITY;
      l[h] = 0;
    }
#pragma unroll
    for (int j = 0; j < kDim / 8; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) o[j][e] = 0;
  }
};

template <int kHalves>
__device__ __forceinline__ void MultiplyRows(float (&c)[4], const uint32_t (&a)[2 * kHalves],
                                             uint32_t b0, uint32_t b1) {
  if constexpr (kHalves == 1)
    ptx::MultiplyAdd(c, a[0], 0, a[1], 0, b0, b1);
  else
    ptx::MultiplyAdd(c, a[0], a[2], a[1], a[3], b0, b1);
}

// Scores of the warp's 16 keys: x[h][e] is row g + 8 h, key 8 (e >> 1) + 2 t + (e & 1). Two chains
// of products for each block of 8 keys hide their latency.
template <int kDim, int kRows, class Layout>
__device__ __forceinline__ void DecodeScores(const DecodeState<kDim, kRows>& state, uint32_t k,
                                             int warp, int lane, float (&x)[kRowHalves<kRows>][4]) {
  constexpr int kHalves = kRowHalves<kRows>;
  float s[2][2][4] = {};
  const int row = warp * 16 + (lane & 7) + ((lane >> 4) << 3), part = (lane >> 3) & 1;
#pragma unroll
  for (int j = 0; j < kDim / 16; ++j) {
    uint32_t b[4];
    ptx::LoadMatrix4(b, k + Layout::Offset(row, 2 * j + part));
    MultiplyRows<kHalves>(s[0][j & 1], state.q[j], b[0], b[1]);
    MultiplyRows<kHalves>(s[1][j & 1], state.q[j], b[2], b[3]);
  }
#pragma unroll
  for (int h = 0; h < kHalves; ++h)
#pragma unroll
    for (int e = 0; e < 4; ++e)
      x[h][e] = s[e >> 1][0][2 * h + (e & 1)] + s[e >> 1][1][2 * h + (e & 1)];
}

template <int kHalves>
__device__ __forceinline__ void MaskDecode(float (&x)[kHalves][4], const DecodeRecord& r, int n,
                                           int warp, int lane) {
  const int first = n * kPageTokens;
  if (!NeedsCausalMask(first, kPageTokens, r.position) &&
      !NeedsSpanMask(first, kPageTokens, r.position, r.window, r.sinks))
    return;
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    const int key = first + warp * 16 + (e >> 1) * 8 + 2 * (lane & 3) + (e & 1);
    if (key > r.position || (key <= r.position - r.window && key >= r.sinks)) {
#pragma unroll
      for (int h = 0; h < kHalves; ++h) x[h][e] = -INFINITY;
    }
  }
}

// Running softmax: x becomes probabilities relative to m. A warp may have seen no key yet: its
// maximum is -inf then and its probabilities zero.
template <int kDim, int kRows>
__device__ __forceinline__ void DecodeSoftmax(DecodeState<kDim, kRows>& state,
                                              float (&x)[kRowHalves<kRows>][4], float scale_log2) {
  constexpr int kHalves = kRowHalves<kRows>;
  float top[kHalves];
  bool grown = false;
#pragma unroll
  for (int h = 0; h < kHalves; ++h) {
    top[h] = fmaxf(fmaxf(x[h][0], x[h][1]), fmaxf(x[h][2], x[h][3]));
    top[h] = fmaxf(top[h], __shfl_xor_sync(~0u, top[h], 1));
    top[h] = fmaxf(top[h], __shfl_xor_sync(~0u, top[h], 2));
    top[h] = fmaxf(top[h], state.m[h]);
    grown |= top[h] > state.m[h];
  }
  if (__any_sync(~0u, grown)) {
#pragma unroll
    for (int h = 0; h < kHalves; ++h) {
      const float base = top[h] == -INFINITY ? 0.f : top[h];
      const float scale = ptx::Exp2((state.m[h] - base) * scale_log2);
      state.l[h] *= scale;
      state.m[h] = top[h];
#pragma unroll
      for (int j = 0; j < kDim / 8; ++j) {
        state.o[j][2 * h] *= scale;
        state.o[j][2 * h + 1] *= scale;
      }
    }
  }
#pragma unroll
  for (int h = 0; h < kHalves; ++h) {
    const float mc = state.m[h] == -INFINITY ? 0.f : -state.m[h] * scale_log2;
#pragma unroll
    for (int e = 0; e < 4; ++e) x[h][e] = ptx::Exp2(fmaf(x[h][e], scale_log2, mc));
    state.l[h] += (x[h][0] + x[h][1]) + (x[h][2] + x[h][3]);
  }
}

// Key tile n, whose K and V lie at shared addresses k and v as Layout says.
template <int kDim, int kRows, class Layout>
__device__ __forceinline__ void DecodeTile(DecodeState<kDim, kRows>& state,
                                           const DecodeRecord& record, int n, uint32_t k,
                                           uint32_t v, int warp, int lane, float scale_log2) {
  constexpr int kHalves = kRowHalves<kRows>;
  float x[kHalves][4];
  DecodeScores<kDim, kRows, Layout>(state, k, warp, lane, x);
  MaskDecode<kHalves>(x, record, n, warp, lane);
  DecodeSoftmax<kDim, kRows>(state, x, scale_log2);
  uint32_t p[2 * kHalves];
#pragma unroll
  for (int h = 0; h < kHalves; ++h) {
    p[2 * h] = ptx::PackBf16(x[h][0], x[h][1]);
    p[2 * h + 1] = ptx::PackBf16(x[h][2], x[h][3]);
  }
  const int row = warp * 16 + (lane & 15), part = lane >> 4;
#pragma unroll
  for (int j = 0; j < kDim / 8; j += 2) {
    uint32_t b[4];
    ptx::LoadMatrixTransposed4(b, v + Layout::Offset(row, j + part));
    MultiplyRows<kHalves>(state.o[j], p, b[0], b[1]);
    MultiplyRows<kHalves>(state.o[j + 1], p, b[2], b[3]);
  }
}

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_ATTENTION_DECODE_TILE_CUH_
