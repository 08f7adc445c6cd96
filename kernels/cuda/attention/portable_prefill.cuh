// Prefill attention for any GPU since Ampere: a warp's work on one key tile. A warp has 32 query
// rows as two blocks of 16; a thread holds parts of rows g and g + 8 of each.

#ifndef SWAA_KERNELS_CUDA_ATTENTION_PORTABLE_PREFILL_CUH_
#define SWAA_KERNELS_CUDA_ATTENTION_PORTABLE_PREFILL_CUH_

#include <cstdint>

#include "kernels/cuda/attention/portable_layout.cuh"
#include "kernels/cuda/attention/visited_tiles.h"
#include "kernels/cuda/ptx.cuh"

namespace swaa::kernels::cuda::portable {

constexpr int kRowBlocks = 2;  // of 16 rows, a warp: two halve what is read of K and V from shared
constexpr int kWarpRows = 16 * kRowBlocks, kWarps = 4, kThreads = 32 * kWarps;
constexpr int kQueryRows = kWarps * kWarpRows;
constexpr int kKeys = kPageTokens;  // of a tile: a page
constexpr float kLazyBits = 8.f;    // the output is rescaled when a maximum has grown by 2^8

// Scores are taken half a tile at a time: those of a whole one do not fit into registers beside the
// output.
constexpr int kHalfKeys = kKeys / 2;
using ScoreTile = float[kRowBlocks][kHalfKeys / 8][4];
using ProbabilityTile = uint32_t[kRowBlocks][kHalfKeys / 16][4];  // A operands of P V

// Output rows, maxima and sums (of this thread's columns) so far.
template <int kDim>
struct RowState {
  float o[kRowBlocks][kDim / 8][4];
  float m[kRowBlocks][2], l[kRowBlocks][2];

  __device__ __forceinline__ void Clear() {
#pragma unroll
    for (int b = 0; b < kRowBlocks; ++b) {
#pragma unroll
      for (int j = 0; j < kDim / 8; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) o[b][j][e] = 0;
#pragma unroll
      for (int h = 0; h < 2; ++h) m[b][h] = -INFINITY, l[b][h] = 0;
    }
  }
};

// s = Q K^T of the warp's rows, first_row on of q, and half a tile of keys, first_key on of k.
template <int kDim>
__device__ __forceinline__ void Scores(ScoreTile& s, uint32_t q, uint32_t k, int first_row,
                                       int first_key, int lane) {
  using Layout = PortableLayout<kDim>;
  const uint32_t q_address = q + Layout::Offset(first_row + (lane & 15), lane >> 4);
  const uint32_t k_address =
      k + Layout::Offset(first_key + (lane & 7) + ((lane >> 4) << 3), (lane >> 3) & 1);
#pragma unroll
  for (int b = 0; b < kRowBlocks; ++b)
#pragma unroll
    for (int j = 0; j < kHalfKeys / 8; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) s[b][j][e] = 0;
#pragma unroll
  for (int i = 0; i < kDim / 16; ++i) {
    uint32_t a[kRowBlocks][4];
#pragma unroll
    for (int b = 0; b < kRowBlocks; ++b)
      ptx::LoadMatrix4(a[b], Layout::Later(q_address, 2 * i) + 16 * b * Layout::kRowBytes);
#pragma unroll
    for (int j = 0; j < kHalfKeys / 16; ++j) {
      uint32_t keys[4];
      ptx::LoadMatrix4(keys, Layout::Later(k_address, 2 * i) + 16 * j * Layout::kRowBytes);
#pragma unroll
      for (int b = 0; b < kRowBlocks; ++b) {
        ptx::MultiplyAdd(s[b][2 * j], a[b][0], a[b][1], a[b][2], a[b][3], keys[0], keys[1]);
        ptx::MultiplyAdd(s[b][2 * j + 1], a[b][0], a[b][1], a[b][2], a[b][3], keys[2], keys[3]);
      }
    }
  }
}

// position: of the warp's first row.
__device__ __forceinline__ void Mask(ScoreTile& s, int first_key, int position, int window,
                                     int sinks, int lane) {
  if (!NeedsCausalMask(first_key, kHalfKeys, position) &&
      !NeedsSpanMask(first_key, kHalfKeys, position + kWarpRows - 1, window, sinks))
    return;
#pragma unroll
  for (int b = 0; b < kRowBlocks; ++b)
#pragma unroll
    for (int j = 0; j < kHalfKeys / 8; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int row = position + 16 * b + (lane >> 2) + 8 * (e >> 1);
        const int key = first_key + 8 * j + 2 * (lane & 3) + (e & 1);
        if (key > row || (key <= row - window && key >= sinks)) s[b][j][e] = -INFINITY;
      }
}

// Grows the maxima of row block b by its scores; rescales what is accumulated when one has grown
// much. A row may have seen no key yet: its maximum stays -inf.
template <int kDim>
__device__ __forceinline__ void GrowMaxima(RowState<kDim>& state,
                                           const float (&s)[kHalfKeys / 8][4], int b, float c) {
  float grown[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float top = fmaxf(s[0][2 * h], s[0][2 * h + 1]);
#pragma unroll
    for (int j = 1; j < kHalfKeys / 8; ++j) top = fmaxf(top, fmaxf(s[j][2 * h], s[j][2 * h + 1]));
    top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
    top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
    grown[h] = fmaxf(top, state.m[b][h]);
  }
  if (!__any_sync(~0u, (grown[0] - state.m[b][0]) * c > kLazyBits ||
                           (grown[1] - state.m[b][1]) * c > kLazyBits))
    return;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const float scale = state.m[b][h] == grown[h] ? 1.f : ptx::Exp2((state.m[b][h] - grown[h]) * c);
    state.m[b][h] = grown[h];
    state.l[b][h] *= scale;
#pragma unroll
    for (int j = 0; j < kDim / 8; ++j) {
      state.o[b][j][2 * h] *= scale;
      state.o[b][j][2 * h + 1] *= scale;
    }
  }
}

// Running softmax: p = probabilities relative to the maxima. c: scale of scores, times log2(e).
template <int kDim>
__device__ __forceinline__ void Softmax(RowState<kDim>& state, ScoreTile& s, ProbabilityTile& p,
                                        float c) {
#pragma unroll
  for (int b = 0; b < kRowBlocks; ++b) {
    GrowMaxima<kDim>(state, s[b], b, c);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float mc = state.m[b][h] == -INFINITY ? 0.f : -state.m[b][h] * c;
      float sum = 0;
#pragma unroll
      for (int j = 0; j < kHalfKeys / 8; ++j) {
        const float x = ptx::Exp2(fmaf(s[b][j][2 * h], c, mc));
        const float y = ptx::Exp2(fmaf(s[b][j][2 * h + 1], c, mc));
        sum += x + y;
        p[b][j >> 1][2 * (j & 1) + h] = ptx::PackBf16(x, y);
      }
      state.l[b][h] += sum;
    }
  }
}

// O += P V, with keys first_key on of v.
template <int kDim>
__device__ __forceinline__ void Values(RowState<kDim>& state, const ProbabilityTile& p, uint32_t v,
                                       int first_key, int lane) {
  using Layout = PortableLayout<kDim>;
  const uint32_t address = v + Layout::Offset(first_key + (lane & 15), lane >> 4);
#pragma unroll
  for (int i = 0; i < kHalfKeys / 16; ++i)
#pragma unroll
    for (int j = 0; j < kDim / 8; j += 2) {
      uint32_t x[4];
      ptx::LoadMatrixTransposed4(x, Layout::Later(address, j) + 16 * i * Layout::kRowBytes);
#pragma unroll
      for (int b = 0; b < kRowBlocks; ++b) {
        ptx::MultiplyAdd(state.o[b][j], p[b][i][0], p[b][i][1], p[b][i][2], p[b][i][3], x[0], x[1]);
        ptx::MultiplyAdd(state.o[b][j + 1], p[b][i][0], p[b][i][1], p[b][i][2], p[b][i][3], x[2],
                         x[3]);
      }
    }
}

}  // namespace swaa::kernels::cuda::portable

#endif  // SWAA_KERNELS_CUDA_ATTENTION_PORTABLE_PREFILL_CUH_
