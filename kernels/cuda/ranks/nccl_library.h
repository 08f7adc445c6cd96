// NCCL, loaded when several GPUs are to share a model. Not linked: the binary then starts on
// machines without it.

#ifndef SWAA_KERNELS_CUDA_RANKS_NCCL_LIBRARY_H_
#define SWAA_KERNELS_CUDA_RANKS_NCCL_LIBRARY_H_

#include <nccl.h>

#include "absl/status/statusor.h"

namespace swaa::kernels::cuda {

// The functions that ranks use.
struct NcclLibrary {
  decltype(&::ncclCommInitAll) comm_init_all = nullptr;
  decltype(&::ncclCommAbort) comm_abort = nullptr;
  decltype(&::ncclAllReduce) all_reduce = nullptr;
  decltype(&::ncclAllGather) all_gather = nullptr;
  decltype(&::ncclGetErrorString) get_error_string = nullptr;
};

// Loaded once, for ever; thread-safe. FAILED_PRECONDITION names the library, where it was looked
// for, and the way out.
absl::StatusOr<const NcclLibrary*> LoadNccl();

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_RANKS_NCCL_LIBRARY_H_
