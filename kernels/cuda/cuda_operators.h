// The CUDA backend: operators on one stream of one GPU, two steps deep.

#ifndef SWAA_KERNELS_CUDA_CUDA_OPERATORS_H_
#define SWAA_KERNELS_CUDA_CUDA_OPERATORS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/operators.h"

namespace swaa::kernels::cuda {

// As CreateOperators, for options.device "cuda" or "cuda:n". Errors as OpenCudaDevice;
// INVALID_ARGUMENT for a dtype other than auto and for a gpu_memory_utilization outside (0, 1].
absl::StatusOr<std::unique_ptr<Operators>> CreateCudaOperators(const OperatorsOptions& options);

// As CreateRanks, likewise. Errors also as MakeGpuCommunicators.
absl::StatusOr<std::vector<std::unique_ptr<Operators>>> CreateCudaRanks(
    const OperatorsOptions& options, int32_t ranks);

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_CUDA_OPERATORS_H_
