// Prefill attention for Hopper: masks, running softmax and probabilities of a score tile in
// registers. A thread holds parts of two rows, r and r + 8, four consecutive accumulators for every
// 8 keys: {row r, keys 2t and 2t + 1; row r + 8, the same keys}.

#ifndef SWAA_KERNELS_CUDA_ATTENTION_HOPPER_SOFTMAX_CUH_
#define SWAA_KERNELS_CUDA_ATTENTION_HOPPER_SOFTMAX_CUH_

#include "kernels/cuda/attention/hopper_prefill.cuh"

namespace swaa::kernels::cuda::hopper {

// The output is rescaled only when a row maximum has grown by more than 2^8.
constexpr float kLazyBits = 8.f;

// Which 64 of a tile's 128 keys a warpgroup has to look at. At the diagonal, at the window's edge
// and at few sinks it is often only half of them.
enum Columns { kAll, kLow, kHigh };
__device__ __forceinline__ Columns Needed(const Walk& walk, int n, int base) {
  auto needed = [&](int key) { return SeesAny(key, 64, base, base + 63, walk.window, walk.sinks); };
  return !needed(n * kKeys + 64) ? kLow : !needed(n * kKeys) ? kHigh : kAll;
}

// Sets s to -inf where hide(position of the row's query - first column, key - first column).
template <int N, class F>
__device__ __forceinline__ void Hide(float (&s)[N], int limit, F&& hide) {
#pragma unroll
  for (int h = 0; h < 2; ++h)
#pragma unroll
    for (int j = 0; j < N / 4; ++j)
#pragma unroll
      for (int e = 0; e < 2; ++e)
        if (hide(limit + 8 * h, 8 * j + e)) s[4 * j + 2 * h + e] = -INFINITY;
}

// base: position of the warpgroup's first row; row: of the thread's first row. Passes of one
// comparison an element, each only where it can change something.
template <int N>
__device__ __forceinline__ void Mask(float (&s)[N], const Walk& walk, int first_key, int base,
                                     int row, int lane) {
  const int end = first_key + 2 * N, column = first_key + 2 * (lane & 3), limit = row - column;
  if (NeedsCausalMask(first_key, 2 * N, base)) Hide(s, limit, [](int l, int c) { return c > l; });
  if (!NeedsSpanMask(first_key, 2 * N, base + 63, walk.window, walk.sinks)) return;
  const int sinks = walk.sinks - column;
  if (first_key >= walk.sinks)
    Hide(s, limit - walk.window, [](int l, int c) { return c <= l; });
  else if (end <= base - walk.window + 1)
    Hide(s, 0, [sinks](int, int c) { return c >= sinks; });
  else
    Hide(s, limit - walk.window, [sinks](int l, int c) { return c <= l && c >= sinks; });
}

// Maximum of row half h over the quad that shares the row.
template <int N>
__device__ __forceinline__ float RowMax(const float (&s)[N], int h) {
  float part[2];
#pragma unroll
  for (int j = 0; j < N / 4; ++j) {
    const float x = fmaxf(s[4 * j + 2 * h], s[4 * j + 2 * h + 1]);
    part[j & 1] = j < 2 ? x : fmaxf(part[j & 1], x);
  }
  float a = fmaxf(part[0], part[1]);
  a = fmaxf(a, __shfl_xor_sync(~0u, a, 1));
  return fmaxf(a, __shfl_xor_sync(~0u, a, 2));
}

// The thread's own part of row half h's sum.
template <int N>
__device__ __forceinline__ float RowSum(const float (&s)[N], int h) {
  float part[2];
#pragma unroll
  for (int j = 0; j < N / 4; ++j) {
    const float x = s[4 * j + 2 * h] + s[4 * j + 2 * h + 1];
    part[j & 1] = j < 2 ? x : part[j & 1] + x;
  }
  return part[0] + part[1];
}

// Running softmax: s becomes probabilities relative to m; returns whether the output must be
// multiplied by scale[]. c: scale of scores, times log2(e).
template <bool kFirst, int N>
__device__ __forceinline__ bool Softmax(float (&s)[N], float (&m)[2], float (&l)[2],
                                        float (&scale)[2], float c) {
  float grown[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) grown[h] = kFirst ? RowMax(s, h) : fmaxf(m[h], RowMax(s, h));
  bool rescale = false;
  if (kFirst) {
    m[0] = grown[0];
    m[1] = grown[1];
  } else {
    rescale =
        __any_sync(~0u, (grown[0] - m[0]) * c > kLazyBits || (grown[1] - m[1]) * c > kLazyBits);
    if (rescale) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        scale[h] = m[h] == grown[h] ? 1.f : ptx::Exp2((m[h] - grown[h]) * c);
        l[h] *= scale[h];
        m[h] = grown[h];
      }
    }
  }
  // A row may see nothing so far, in a part of a query tile that begins left of the diagonal.
  const float mc[2] = {m[0] == -INFINITY ? 0.f : -m[0] * c, m[1] == -INFINITY ? 0.f : -m[1] * c};
#pragma unroll
  for (int j = 0; j < N / 4; ++j)
#pragma unroll
    for (int e = 0; e < 4; ++e) s[4 * j + e] = ptx::Exp2(fmaf(s[4 * j + e], c, mc[e >> 1]));
#pragma unroll
  for (int h = 0; h < 2; ++h) l[h] = kFirst ? RowSum(s, h) : l[h] + RowSum(s, h);
  return rescale;
}

// Probabilities of all 128 keys as the A operand of P V; or of 64 from kFirst on and zero for the
// others.
template <int kFirst, int N>
__device__ __forceinline__ void Pack(const float (&s)[N], uint32_t (&p)[32]) {
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    const int k = 2 * (i - kFirst / 4);
    p[i] = k >= 0 && k < N ? ptx::PackBf16(s[k], s[k + 1]) : 0;
  }
}

template <int N>
__device__ __forceinline__ void Rescale(float (&o)[N], const float (&scale)[2]) {
#pragma unroll
  for (int i = 0; i < N; ++i) o[i] *= scale[(i >> 1) & 1];
}

}  // namespace swaa::kernels::cuda::hopper

#endif  // SWAA_KERNELS_CUDA_ATTENTION_HOPPER_SOFTMAX_CUH_
