// Results of CUDA calls as exceptions and statuses.

#include "kernels/cuda/cuda_check.h"

#include "absl/strings/str_cat.h"

namespace swaa::kernels::cuda {

void CudaCheck(cudaError_t code, const char* call, const char* file, int line) {
  if (code == cudaSuccess) return;
  throw CudaError(code, absl::StrCat("CUDA: ", cudaGetErrorString(code), " (",
                                     cudaGetErrorName(code), ") at ", file, ":", line, ": ", call));
}

absl::Status CudaStatus(cudaError_t code, const std::string& what) {
  if (code == cudaSuccess) return absl::OkStatus();
  const std::string message =
      absl::StrCat(what, ": ", cudaGetErrorString(code), " (", cudaGetErrorName(code), ")");
  if (code == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // the next check of a launch would find it
    return absl::ResourceExhaustedError(message);
  }
  return absl::InternalError(message);
}

}  // namespace swaa::kernels::cuda
