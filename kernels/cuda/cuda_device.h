// The GPU that a backend runs on: found, checked, and asked for what decides which kernels serve.

#ifndef SWAA_KERNELS_CUDA_CUDA_DEVICE_H_
#define SWAA_KERNELS_CUDA_CUDA_DEVICE_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace swaa::kernels::cuda {

struct CudaDevice {
  int ordinal = 0;
  std::string name;  // as the driver tells it: "NVIDIA H100 80GB HBM3"
  int major = 0;     // compute capability
  int minor = 0;
  int multiprocessors = 0;
};

// The GPU of a --device value "cuda" or "cuda:n", made the calling thread's current one.
// INVALID_ARGUMENT where the value is none of these or names a GPU that is not there;
// FAILED_PRECONDITION without a driver, with one too old, or with a GPU below compute capability
// 8.0. Every message names the way out.
absl::StatusOr<CudaDevice> OpenCudaDevice(std::string_view device);

// Whether the machine has a GPU that OpenCudaDevice("cuda") would open.
bool HasCudaDevice();

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_CUDA_DEVICE_H_
