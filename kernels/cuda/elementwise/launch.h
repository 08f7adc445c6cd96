// Where and how a kernel is launched.

#ifndef SWAA_KERNELS_CUDA_ELEMENTWISE_LAUNCH_H_
#define SWAA_KERNELS_CUDA_ELEMENTWISE_LAUNCH_H_

#include <cstdint>
#include <cuda_runtime_api.h>

namespace swaa::kernels::cuda {

struct Launch {
  cudaStream_t stream = nullptr;
  // The kernel may begin while the one before it in the stream still runs (it waits for its
  // results). Needs compute capability 9.0 and a predecessor that is a kernel.
  bool programmatic = false;
  int32_t shared_bytes = 0;  // dynamic ones, a block
};

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_ELEMENTWISE_LAUNCH_H_
