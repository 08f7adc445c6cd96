// Sums over a block of threads.

#ifndef SWAA_KERNELS_CUDA_ELEMENTWISE_BLOCK_SUM_CUH_
#define SWAA_KERNELS_CUDA_ELEMENTWISE_BLOCK_SUM_CUH_

#include <cuda_runtime.h>

namespace swaa::kernels::cuda {

__device__ __forceinline__ float WarpSum(float value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(~0u, value, offset);
  return value;
}

// Every thread gets the block's sum. Once in a kernel.
__device__ __forceinline__ float BlockSum(float value) {
  __shared__ float partial[32];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  value = WarpSum(value);
  if (lane == 0) partial[warp] = value;
  __syncthreads();
  const int warps = blockDim.x / 32;
  return WarpSum(lane < warps ? partial[lane] : 0.0f);
}

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_ELEMENTWISE_BLOCK_SUM_CUH_
