// What is done with the result of a CUDA call: a Status where capacity or the machine can be at
// fault, an exception where a launch failed in the middle of a step.

#ifndef SWAA_KERNELS_CUDA_CUDA_CHECK_H_
#define SWAA_KERNELS_CUDA_CUDA_CHECK_H_

#include <cuda_runtime_api.h>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

#include "absl/status/status.h"

namespace swaa::kernels::cuda {

// Thrown by CudaCheck, caught by the device's thread. CUDA's errors stay: whoever catches one
// treats the device as lost.
class CudaError : public std::runtime_error {
 public:
  CudaError(cudaError_t code, const std::string& what) : std::runtime_error(what), code_(code) {}
  cudaError_t code() const { return code_; }

 private:
  cudaError_t code_;
};

// Thrown in the middle of a step that needs more memory than there is; later steps may succeed.
class OutOfMemory : public std::bad_alloc {
 public:
  explicit OutOfMemory(std::string what) : what_(std::move(what)) {}
  const char* what() const noexcept override { return what_.c_str(); }

 private:
  std::string what_;
};

// Throws a CudaError that names the call, its place and CUDA's words, unless `code` is success.
void CudaCheck(cudaError_t code, const char* call, const char* file, int line);

// OK, RESOURCE_EXHAUSTED for cudaErrorMemoryAllocation, else INTERNAL; the message begins with
// `what`. A lack of memory is forgotten by CUDA then: it is no fault of what is launched later.
absl::Status CudaStatus(cudaError_t code, const std::string& what);

}  // namespace swaa::kernels::cuda

// Checks a call of the CUDA runtime.
#define SWAA_CUDA_CHECK(call) ::swaa::kernels::cuda::CudaCheck((call), #call, __FILE__, __LINE__)
// Checks the launch just made.
#define SWAA_CUDA_CHECK_LAUNCH() SWAA_CUDA_CHECK(cudaPeekAtLastError())

#endif  // SWAA_KERNELS_CUDA_CUDA_CHECK_H_
