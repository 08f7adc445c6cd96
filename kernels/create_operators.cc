// The backends of this build.

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cpu/cpu_operators.h"
#include "kernels/operators.h"
#include "kernels/ranks/memory_communicator.h"
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
absl::StatusOr<std::vector<std::unique_ptr<Operators>>> CreateOnGpus(
    const OperatorsOptions& options, int32_t ranks) {
  return cuda::CreateCudaRanks(options, ranks);
}
#else
constexpr char kDevices[] = "auto, cpu";
bool HasGpu() { return false; }
absl::StatusOr<std::unique_ptr<Operators>> CreateOnGpu(const OperatorsOptions& options) {
  return absl::InvalidArgumentError(absl::StrCat("device: this build has no \"", options.device,
                                                 "\"; it has ", kDevices,
                                                 " (build it where there is a CUDA compiler)"));
}
absl::StatusOr<std::vector<std::unique_ptr<Operators>>> CreateOnGpus(
    const OperatorsOptions& options, int32_t ranks) {
  return CreateOnGpu(options).status();
}
#endif

// With a device that is not "auto", and that some build has.
absl::StatusOr<OperatorsOptions> Choose(const OperatorsOptions& options) {
  OperatorsOptions chosen = options;
  if (options.device == "auto") chosen.device = HasGpu() ? "cuda" : "cpu";
  if (chosen.device == "cpu" || chosen.device == "cuda" || chosen.device.rfind("cuda:", 0) == 0) {
    return chosen;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("device: this build has no \"", options.device, "\"; it has ", kDevices));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Operators>> CreateOperators(const OperatorsOptions& options) {
  SWAA_ASSIGN_OR_RETURN(const OperatorsOptions chosen, Choose(options));
  return chosen.device == "cpu" ? cpu::CreateCpuOperators(chosen) : CreateOnGpu(chosen);
}

absl::StatusOr<std::vector<std::unique_ptr<Operators>>> CreateRanks(const OperatorsOptions& options,
                                                                    int32_t ranks) {
  SWAA_ASSIGN_OR_RETURN(const OperatorsOptions chosen, Choose(options));
  if (chosen.device != "cpu") return CreateOnGpus(chosen, ranks);
  std::vector<std::unique_ptr<Operators>> all;
  for (std::unique_ptr<Communicator>& communicator : MakeMemoryCommunicators(ranks)) {
    SWAA_ASSIGN_OR_RETURN(auto operators, cpu::CreateCpuOperators(chosen, std::move(communicator)));
    all.push_back(std::move(operators));
  }
  return all;
}

}  // namespace swaa::kernels
