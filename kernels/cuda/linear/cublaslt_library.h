// cuBLASLt, loaded when the first GPU is opened. Not linked: the binary then starts on machines
// without CUDA, and the library's 92 KiB of thread-local memory do not count against the small
// stacks of other libraries' threads.

#ifndef SWAA_KERNELS_CUDA_LINEAR_CUBLASLT_LIBRARY_H_
#define SWAA_KERNELS_CUDA_LINEAR_CUBLASLT_LIBRARY_H_

#include <cublasLt.h>

#include "absl/status/statusor.h"

namespace swaa::kernels::cuda {

// The functions that products use, under their own names. cuBLASLt's header makes Init functions of
// those that end in _internal.
struct CublasLtLibrary {
  decltype(&::cublasLtCreate) create = nullptr;
  decltype(&::cublasLtDestroy) destroy = nullptr;
  decltype(&::cublasLtGetStatusString) get_status_string = nullptr;
  decltype(&::cublasLtMatmul) matmul = nullptr;
  decltype(&::cublasLtMatmulAlgoGetHeuristic) matmul_algo_get_heuristic = nullptr;
  decltype(&::cublasLtMatmulDescInit_internal) matmul_desc_init = nullptr;
  decltype(&::cublasLtMatmulDescSetAttribute) matmul_desc_set_attribute = nullptr;
  decltype(&::cublasLtMatmulPreferenceInit_internal) matmul_preference_init = nullptr;
  decltype(&::cublasLtMatmulPreferenceSetAttribute) matmul_preference_set_attribute = nullptr;
  decltype(&::cublasLtMatrixLayoutInit_internal) matrix_layout_init = nullptr;
};

// Loaded once, for ever; thread-safe. FAILED_PRECONDITION names the library, where it was looked
// for, and the way out.
absl::StatusOr<const CublasLtLibrary*> LoadCublasLt();

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_LINEAR_CUBLASLT_LIBRARY_H_
