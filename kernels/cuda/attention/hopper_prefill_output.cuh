// Prefill attention for Hopper: what happens to a warpgroup's result: merged with those of other
// parts of the same rows, and written.

#ifndef SWAA_KERNELS_CUDA_ATTENTION_HOPPER_PREFILL_OUTPUT_CUH_
#define SWAA_KERNELS_CUDA_ATTENTION_HOPPER_PREFILL_OUTPUT_CUH_

#include "kernels/cuda/attention/hopper_prefill.cuh"

namespace swaa::kernels::cuda::hopper {

// Writes the warp's 16 rows through shared memory (`stage`), 16 bytes a lane. row: the warp's first
// of the tile.
template <class T>
__device__ __forceinline__ void Store(const float (&o)[T::kColumns / 2], const float (&l)[2],
                                      const Output& output, const PrefillParams& p, uint16_t* stage,
                                      int row, int lane) {
  constexpr int kChunks = T::kHeadDim / 8, kRowBytes = T::kColumns * 2;
  const float inverse[2] = {1.f / l[0], 1.f / l[1]};
  const uint32_t base = ptx::SharedAddress(stage);
  __syncwarp();
#pragma unroll
  for (int j = 0; j < kChunks; j += 2) {  // four 8x8 blocks: rows 0-7, 8-15 of chunks j, j + 1
    const int r = (lane & 7) + (lane & 8), chunk = j + (lane >> 4);
    const uint32_t address = base + r * kRowBytes + ((chunk ^ (r & 7)) << 4);
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
                 "r"(ptx::PackBf16(o[4 * j] * inverse[0], o[4 * j + 1] * inverse[0])),
                 "r"(ptx::PackBf16(o[4 * j + 2] * inverse[1], o[4 * j + 3] * inverse[1])),
                 "r"(ptx::PackBf16(o[4 * j + 4] * inverse[0], o[4 * j + 5] * inverse[0])),
                 "r"(ptx::PackBf16(o[4 * j + 6] * inverse[1], o[4 * j + 7] * inverse[1]))
                 : "memory");
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < kChunks / 2; ++i) {
    const int r = (32 * i + lane) / kChunks, chunk = (32 * i + lane) % kChunks;
    const uint4 value = *reinterpret_cast<const uint4*>(reinterpret_cast<const char*>(stage) +
                                                        r * kRowBytes + ((chunk ^ (r & 7)) << 4));
    const int tile_row = row + r;
    if (tile_row >= output.first && tile_row <= output.last) {
      const int64_t at =
          (static_cast<int64_t>(output.out_row + tile_row) * p.heads + output.head) * T::kHeadDim +
          chunk * 8;
      *reinterpret_cast<uint4*>(p.out + at) = value;
    }
  }
}

// Leaves a part's result, or merges those of all parts into o, m and l when this warpgroup is the
// last of the query tile's to arrive. A result lies as the threads hold it. Returns whether the
// output is to be written.
template <class T>
__device__ bool Merge(float (&o)[T::kColumns / 2], float (&m)[2], float (&l)[2],
                      const Output& output, const PrefillParams& p, int* is_last, int group) {
  constexpr int kHalf = T::kColumns / 2;
  const int thread = threadIdx.x & 127;
  auto result = [&](int part) {
    return p.partials +
           (static_cast<int64_t>(output.result + part) * T::kGroups + group) * T::kThreadFloats *
               128 +
           thread;
  };
  float* mine = result(output.part);
#pragma unroll
  for (int i = 0; i < kHalf; ++i) __stcg(mine + i * 128, o[i]);
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    __stcg(mine + (kHalf + h) * 128, m[h]);
    __stcg(mine + (kHalf + 2 + h) * 128, l[h]);
  }
  ptx::NamedSync<128>(4 + group);
  if (thread == 0) {
    const uint32_t last = output.parts - 1;
    is_last[group] = ptx::CountArrival(p.arrivals + output.arrival + group, last) == last;
  }
  ptx::NamedSync<128>(4 + group);
  if (!__any_sync(~0u, is_last[group])) return false;
    // All from memory, in order: the sum does not depend on who came last.
#pragma unroll
  for (int i = 0; i < kHalf; ++i) o[i] = 0;
  m[0] = m[1] = -INFINITY;
  l[0] = l[1] = 0;
  for (int part = 0; part < output.parts; ++part) {
    const float* x = result(part);
    float f[2], g[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float pm = __ldcg(x + (kHalf + h) * 128), pl = __ldcg(x + (kHalf + 2 + h) * 128);
      const float top = fmaxf(m[h], pm), base = top == -INFINITY ? 0.f : top;
      f[h] = ptx::Exp2((m[h] - base) * p.scale_log2);
      g[h] = ptx::Exp2((pm - base) * p.scale_log2);
      l[h] = l[h] * f[h] + pl * g[h];
      m[h] = top;
    }
#pragma unroll
    for (int i = 0; i < kHalf; ++i)
      o[i] = o[i] * f[(i >> 1) & 1] + __ldcg(x + i * 128) * g[(i >> 1) & 1];
  }
  return true;
}

}  // namespace swaa::kernels::cuda::hopper

#endif  // SWAA_KERNELS_CUDA_ATTENTION_HOPPER_PREFILL_OUTPUT_CUH_
