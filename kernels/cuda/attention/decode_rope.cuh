// Decode attention that takes q, K and V of its rows as the product left them: norms of heads,
// rotary embedding (rotate-half form) and the write of a row's key and value happen here, and not
// in a kernel of their own. The arithmetic is RopeAndStore's.

#ifndef SWAA_KERNELS_CUDA_ATTENTION_DECODE_ROPE_CUH_
#define SWAA_KERNELS_CUDA_ATTENTION_DECODE_ROPE_CUH_

#include <cstdint>

#include "kernels/cuda/attention/decode_tile.cuh"

namespace swaa::kernels::cuda {

__device__ __forceinline__ float2 UnpackBf16(uint32_t pair) {
  return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
}

__device__ __forceinline__ float SquareSum(uint32_t pair) {
  const float2 x = UnpackBf16(pair);
  return x.x * x.x + x.y * x.y;
}

// What columns `column` and the next one are multiplied by, and those of the other half.
template <int kDim>
struct RopeFactors {
  float2 cosine, sine, norm[2] = {};

  __device__ __forceinline__ void Load(const float* cos_sin, const float* of_norm, int column) {
    cosine = *reinterpret_cast<const float2*>(cos_sin + column);
    sine = *reinterpret_cast<const float2*>(cos_sin + kDim / 2 + column);
    if (of_norm == nullptr) return;
    norm[0] = *reinterpret_cast<const float2*>(of_norm + column);
    norm[1] = *reinterpret_cast<const float2*>(of_norm + kDim / 2 + column);
  }

  // inverse: 1 / rms where there is a norm.
  __device__ __forceinline__ void Apply(uint32_t& low, uint32_t& high, bool has_norm,
                                        float inverse) const {
    float2 a = UnpackBf16(low), b = UnpackBf16(high);
    if (has_norm) {
      a.x *= inverse * norm[0].x, a.y *= inverse * norm[0].y;
      b.x *= inverse * norm[1].x, b.y *= inverse * norm[1].y;
    }
    low = ptx::PackBf16(a.x * cosine.x - b.x * sine.x, a.y * cosine.y - b.y * sine.y);
    high = ptx::PackBf16(b.x * cosine.x + a.x * sine.x, b.y * cosine.y + a.y * sine.y);
  }
};

// The queries of a warp's state. Columns that are rotated with each other are a lane's own.
template <int kDim, int kRows>
__device__ __forceinline__ void RotateQueries(const DecodeRope& rope, int row, int lane,
                                              DecodeState<kDim, kRows>& state) {
  // All loads before the first use: a load takes long while weights are read beside it.
  RopeFactors<kDim> factors[kDim / 32][2];
#pragma unroll
  for (int i = 0; i < kDim / 32; ++i)
#pragma unroll
    for (int e = 0; e < 2; ++e)
      factors[i][e].Load(rope.cos_sin + int64_t{row} * kDim, rope.q_norm,
                         16 * i + 8 * e + 2 * (lane & 3));
#pragma unroll
  for (int h = 0; h < kRowHalves<kRows>; ++h) {
    float inverse = 0;
    if (rope.q_norm != nullptr) {
      float squares = 0;
#pragma unroll
      for (int i = 0; i < kDim / 16; ++i)
        squares += SquareSum(state.q[i][2 * h]) + SquareSum(state.q[i][2 * h + 1]);
      squares += __shfl_xor_sync(~0u, squares, 1);
      squares += __shfl_xor_sync(~0u, squares, 2);
      inverse = rsqrtf(squares / kDim + rope.norm_epsilon);
    }
#pragma unroll
    for (int i = 0; i < kDim / 32; ++i)
#pragma unroll
      for (int e = 0; e < 2; ++e)
        factors[i][e].Apply(state.q[i][2 * h + e], state.q[i + kDim / 32][2 * h + e],
                            rope.q_norm != nullptr, inverse);
  }
}

// A row's own key and value of one head: a lane has two columns of each half. Held by the warp
// whose keys of the tile they are among, so that it need tell no other.
template <int kDim>
struct OwnKey {
  uint32_t k[2] = {}, v[2] = {};
  RopeFactors<kDim> factors = {};

  __device__ __forceinline__ static bool HasColumns(int lane) { return lane < kDim / 4; }

  __device__ __forceinline__ void Load(const DecodeParams& p, int row, int head, int lane) {
    if (!HasColumns(lane)) return;
    const Bf16* key = p.q + row * p.q_stride + static_cast<int64_t>(p.heads + head) * kDim;
    const Bf16* value = key + static_cast<int64_t>(p.kv_heads) * kDim;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      k[half] = reinterpret_cast<const uint32_t*>(key)[half * (kDim / 4) + lane];
      v[half] = reinterpret_cast<const uint32_t*>(value)[half * (kDim / 4) + lane];
    }
    factors.Load(p.rope.cos_sin + int64_t{row} * kDim, p.rope.k_norm, 2 * lane);
  }

  __device__ __forceinline__ void Rotate(const DecodeRope& rope) {
    float inverse = 0;
    if (rope.k_norm != nullptr) {
      float squares = SquareSum(k[0]) + SquareSum(k[1]);
#pragma unroll
      for (int d = 16; d > 0; d /= 2) squares += __shfl_xor_sync(~0u, squares, d);
      inverse = rsqrtf(squares / kDim + rope.norm_epsilon);
    }
    factors.Apply(k[0], k[1], rope.k_norm != nullptr, inverse);
  }

  // Into the page that ends the sequence, and over what the copy of it has brought: the copy may
  // have read the page before this write or after.
  template <class Layout>
  __device__ __forceinline__ void Store(const DecodeParams& p, const DecodeRecord& record, int head,
                                        uint32_t k_tile, uint32_t v_tile, int lane) const {
    const int block = record.position / kPageTokens, row = record.position % kPageTokens;
    const int64_t page = __ldcg(p.table + record.slot * p.slot_stride + block);
    if (HasColumns(lane)) {
      Bf16* key = p.rope.pool + ((page * 2 * p.kv_heads + head) * kPageTokens + row) * kDim;
      Bf16* value = key + static_cast<int64_t>(p.kv_heads) * kPageTokens * kDim;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int word = half * (kDim / 4) + lane;
        reinterpret_cast<uint32_t*>(key)[word] = k[half];
        reinterpret_cast<uint32_t*>(value)[word] = v[half];
        const uint32_t at = Layout::Offset(row, word / 4) + word % 4 * 4;
        ptx::StoreShared(k_tile + at, k[half]);
        ptx::StoreShared(v_tile + at, v[half]);
      }
    }
    __syncwarp();
  }
};

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_ATTENTION_DECODE_ROPE_CUH_
