// How the memory-bound kernels are launched, so that each may begin under the tail of the one
// before it (programmatic dependent launch, compute capability 9.0).

#ifndef SWAA_KERNELS_CUDA_ELEMENTWISE_LAUNCH_CUH_
#define SWAA_KERNELS_CUDA_ELEMENTWISE_LAUNCH_CUH_

#include <cuda_runtime.h>

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/elementwise/launch.h"
#include "kernels/cuda/ptx.cuh"

namespace swaa::kernels::cuda {

// The first thing a kernel does that has nothing to read in advance: weights, which no kernel
// writes. The next kernel waits in its turn, so letting it begin early is always right, for what it
// reads and for what it overwrites.
__device__ __forceinline__ void BeginKernel() {
  ptx::LaunchDependents();
  ptx::WaitForPredecessor();
}

template <typename... Parameters, typename... Arguments>
void LaunchKernel(void (*kernel)(Parameters...), dim3 grid, dim3 block, const Launch& launch,
                  const Arguments&... arguments) {
  cudaLaunchAttribute attribute;
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = launch.shared_bytes;
  config.stream = launch.stream;
  config.attrs = &attribute;
  config.numAttrs = launch.programmatic ? 1 : 0;
  SWAA_CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...));
}

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_ELEMENTWISE_LAUNCH_CUH_
