// Attention on CUDA: launching a kernel, on its own or under the tail of the one before.

#ifndef SWAA_KERNELS_CUDA_ATTENTION_LAUNCH_CUH_
#define SWAA_KERNELS_CUDA_ATTENTION_LAUNCH_CUH_

#include <cuda_runtime.h>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/cuda/attention/prefill_params.h"
#include "kernels/cuda/cuda_check.h"

namespace swaa::kernels::cuda {

// Allows the kernel so many bytes of dynamic shared memory. UNIMPLEMENTED when the program holds no
// code of it for this device, or the device has less.
template <class Kernel>
absl::Status AllowSharedBytes(Kernel kernel, int bytes, const std::string& name) {
  const cudaError_t code = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                                cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (code == cudaSuccess) return absl::OkStatus();
  cudaGetLastError();  // an answer, not a fault of what is launched later
  if (code == cudaErrorNoKernelImageForDevice || code == cudaErrorInvalidDeviceFunction) {
    return absl::UnimplementedError(absl::StrCat(
        name, ": not built for this GPU; add its architecture to CMAKE_CUDA_ARCHITECTURES"));
  }
  if (code == cudaErrorInvalidValue) {
    return absl::UnimplementedError(absl::StrCat(
        name, ": needs ", bytes, " bytes of shared memory a block, more than this GPU has"));
  }
  return CudaStatus(code, name);
}

template <class... Params, class... Arguments>
void LaunchAttentionKernel(void (*kernel)(Params...), int grid, int threads, int shared_bytes,
                           const LaunchOptions& options, Arguments&&... arguments) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = threads;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = options.stream;
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &attribute;
  config.numAttrs = options.dependent ? 1 : 0;
  SWAA_CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...));
}

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_ATTENTION_LAUNCH_CUH_
