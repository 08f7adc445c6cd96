// The backends of this build.

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/cpu/cpu_operators.h"
#include "kernels/operators.h"
#ifdef SWAA_HAVE_CUDA
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/cuda_operators.h"
#endif

namespace swaa::kernels {
namespace {

#ifdef SWAA_HAVE_CUDA
constexpr char kDevices[] = "auto, cpu, cuda, cuda:n";
bool HasGpu() { return cuda::HasCudaDevice(); }
absl::StatusOr<std::unique_ptr<Operators>> CreateOnGpu(const OperatorsOptions& options) {
  return cuda::CreateCudaOperators(options);
}
#else
constexpr char kDevices[] = "auto, cpu";
bool HasGpu() { return false; }
absl::StatusOr<std::unique_ptr<Operators>> CreateOnGpu(const OperatorsOptions& options) {
  return absl::InvalidArgumentError(absl::StrCat("device: this build has no \"", options.device,
                                                 "\"; it has ", kDevices,
                                                 " (build it where there is a CUDA compiler)"));
}
#endif

}  // namespace

absl::StatusOr<std::unique_ptr<Operators>> CreateOperators(const OperatorsOptions& options) {
  OperatorsOptions chosen = options;
  if (options.device == "auto") chosen.device = HasGpu() ? "cuda" : "cpu";
  if (chosen.device == "cpu") return cpu::CreateCpuOperators(chosen);
  if (chosen.device == "cuda" || chosen.device.rfind("cuda:", 0) == 0) return CreateOnGpu(chosen);
  return absl::InvalidArgumentError(
      absl::StrCat("device: this build has no \"", options.device, "\"; it has ", kDevices));
}

}  // namespace swaa::kernels
