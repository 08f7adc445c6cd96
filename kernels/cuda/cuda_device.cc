// The GPU that a backend runs on.

#include "kernels/cuda/cuda_device.h"

#include <charconv>
#include <cuda_runtime_api.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda/cuda_check.h"

namespace swaa::kernels::cuda {
namespace {

constexpr int kLeastMajor = 8;  // Ampere: bf16 in the tensor cores, cp.async

absl::StatusOr<int> CountDevices() {
  int count = 0;
  const cudaError_t code = cudaGetDeviceCount(&count);
  if (code == cudaErrorInsufficientDriver) {
    int runtime = 0, driver = 0;
    cudaRuntimeGetVersion(&runtime);
    cudaDriverGetVersion(&driver);
    if (driver == 0) {
      return absl::FailedPreconditionError(
          "device: this machine has no NVIDIA driver; install one, or use --device cpu");
    }
    return absl::FailedPreconditionError(
        absl::StrCat("device: the NVIDIA driver supports CUDA ", driver / 1000, ".",
                     driver % 1000 / 10, ", and this build needs ", runtime / 1000, ".",
                     runtime % 1000 / 10, "; install a newer driver, or use --device cpu"));
  }
  if (code == cudaErrorNoDevice || (code == cudaSuccess && count == 0)) {
    return absl::FailedPreconditionError(
        "device: the NVIDIA driver shows no GPU (is CUDA_VISIBLE_DEVICES empty?); "
        "use --device cpu");
  }
  if (code != cudaSuccess) {
    return absl::FailedPreconditionError(
        absl::StrCat("device: CUDA does not start: ", cudaGetErrorString(code), " (",
                     cudaGetErrorName(code), "); use --device cpu"));
  }
  return count;
}

absl::StatusOr<int> ParseOrdinal(std::string_view device, int count) {
  if (device == "cuda") return 0;
  int ordinal = -1;
  const std::string_view number = device.substr(device.find(':') + 1);
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), ordinal);
  if (device.substr(0, 5) != "cuda:" || error != std::errc() ||
      end != number.data() + number.size() || ordinal < 0 || ordinal >= count) {
    return absl::InvalidArgumentError(absl::StrCat(
        "device: \"", std::string(device), "\" is no GPU of this machine; there are cuda:0",
        count > 1 ? absl::StrCat(" to cuda:", count - 1) : ""));
  }
  return ordinal;
}

}  // namespace

absl::StatusOr<CudaDevice> OpenCudaDevice(std::string_view device) {
  SWAA_ASSIGN_OR_RETURN(const int count, CountDevices());
  SWAA_ASSIGN_OR_RETURN(const int ordinal, ParseOrdinal(device, count));
  cudaDeviceProp properties;
  SWAA_RETURN_IF_ERROR(CudaStatus(cudaGetDeviceProperties(&properties, ordinal), "device"));
  if (properties.major < kLeastMajor) {
    return absl::FailedPreconditionError(
        absl::StrCat("device: ", properties.name, " has compute capability ", properties.major, ".",
                     properties.minor, "; the kernels need ", kLeastMajor,
                     ".0 or newer; choose another GPU by cuda:n, or use --device cpu"));
  }
  SWAA_RETURN_IF_ERROR(CudaStatus(cudaSetDevice(ordinal), "device"));
  return CudaDevice{.ordinal = ordinal,
                    .name = properties.name,
                    .major = properties.major,
                    .minor = properties.minor,
                    .multiprocessors = properties.multiProcessorCount};
}

bool HasCudaDevice() { return OpenCudaDevice("cuda").ok(); }

}  // namespace swaa::kernels::cuda
