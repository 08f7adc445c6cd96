// Reductions over a block of kTileThreads threads; every thread gets the result. Called by the
// whole block; safe to call again at once.

#ifndef SWAA_KERNELS_CUDA_SAMPLING_BLOCK_REDUCE_CUH_
#define SWAA_KERNELS_CUDA_SAMPLING_BLOCK_REDUCE_CUH_

#include "kernels/cuda/sampling/state.h"

namespace swaa::kernels::cuda {

constexpr int kTileWarps = kTileThreads / 32;

// The words of `value` as another lane of the warp has them.
template <typename T, typename Shuffle>
__device__ __forceinline__ T FromLane(const T& value, const Shuffle& shuffle) {
  static_assert(sizeof(T) % 4 == 0);
  T other;
#pragma unroll
  for (size_t i = 0; i < sizeof(T) / 4; ++i) {
    reinterpret_cast<uint32_t*>(&other)[i] = shuffle(reinterpret_cast<const uint32_t*>(&value)[i]);
  }
  return other;
}

// combine(a, b) is associative and commutative.
template <typename T, typename Combine>
__device__ __forceinline__ T BlockReduce(T value, const Combine& combine) {
  __shared__ T partial[kTileWarps];
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    const auto partner = [&](uint32_t word) { return __shfl_xor_sync(~0u, word, offset); };
    value = combine(value, FromLane(value, partner));
  }
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

// The sum over the threads before this one; all: over all of them. Sums must be exact in any order:
// whole numbers.
template <typename T>
__device__ __forceinline__ T BlockSumBefore(T value, T* all) {
  __shared__ T partial[kTileWarps];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  T to_here = value;
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const auto earlier = [&](uint32_t word) { return __shfl_up_sync(~0u, word, offset); };
    const T other = FromLane(to_here, earlier);
    if (lane >= offset) to_here += other;
  }
  __syncthreads();  // `partial` of the call before has been read
  if (lane == 31) partial[warp] = to_here;
  __syncthreads();
  T before = to_here - value, total = 0;
#pragma unroll
  for (int w = 0; w < kTileWarps; ++w) {
    if (w < warp) before += partial[w];
    total += partial[w];
  }
  *all = total;
  return before;
}

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_SAMPLING_BLOCK_REDUCE_CUH_
