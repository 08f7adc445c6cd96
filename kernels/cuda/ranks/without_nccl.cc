// A build without NCCL's header: one GPU serves alone.

#include "absl/strings/str_cat.h"
#include "kernels/cuda/ranks/gpu_communicator.h"

namespace swaa::kernels::cuda {

absl::StatusOr<std::vector<std::unique_ptr<GpuCommunicator>>> MakeGpuCommunicators(
    std::span<const int> ordinals) {
  return absl::UnimplementedError(
      absl::StrCat("tensor_parallel_size: this build has no NCCL, by which ", ordinals.size(),
                   " GPUs could share a model; use 1, or build it where NCCL's header is "
                   "(libnccl-dev)"));
}

}  // namespace swaa::kernels::cuda
