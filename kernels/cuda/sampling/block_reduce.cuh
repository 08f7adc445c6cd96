// Reductions over a block of kTileThreads threads; every thread gets the result. Called by the
// whole block; safe to call again at once.

#ifndef SWAA_KERNELS_CUDA_SAMPLING_BLOCK_REDUCE_CUH_
#define SWAA_KERNELS_CUDA_SAMPLING_BLOCK_REDUCE_CUH_

#include "kernels/cuda/sampling/state.h"

namespace swaa::kernels::cuda {

constexpr int kTileWarps = kTileThreads / 32;

// combine(a, b) is associative and commutative; T has up to 16 bytes, in 4-byte words.
template <typename T, typename Combine>
__device__ __forceinline__ T BlockReduce(T value, const Combine& combine) {
  __shared__ T partial[kTileWarps];
  const auto from_lane = [](const T& from, int offset) {
    T other;
#pragma unroll
    for (size_t i = 0; i < sizeof(T) / 4; ++i) {
      reinterpret_cast<uint32_t*>(&other)[i] =
          __shfl_xor_sync(~0u, reinterpret_cast<const uint32_t*>(&from)[i], offset);
    }
    return other;
  };
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) value = combine(value, from_lane(value, offset));
  __syncthreads();  // `partial` of the call before has been read
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  value = partial[0];
#pragma unroll
  for (int warp = 1; warp < kTileWarps; ++warp) value = combine(value, partial[warp]);
  return value;
}

__device__ __forceinline__ float BlockMax(float value) {
  return BlockReduce(value, [](float a, float b) { return fmaxf(a, b); });
}

__device__ __forceinline__ uint64_t BlockMax(uint64_t value) {
  return BlockReduce(value, [](uint64_t a, uint64_t b) { return a > b ? a : b; });
}

// In a fixed order, though not that of the threads.
__device__ __forceinline__ double BlockSum(double value) {
  return BlockReduce(value, [](double a, double b) { return a + b; });
}

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_SAMPLING_BLOCK_REDUCE_CUH_
