// Adds a bias to the rows of a product whose library kernel could not.

#ifndef SWAA_KERNELS_CUDA_LINEAR_ADD_BIAS_H_
#define SWAA_KERNELS_CUDA_LINEAR_ADD_BIAS_H_

#include <cstdint>
#include <cuda_runtime_api.h>

#include "kernels/types.h"

namespace swaa::kernels::cuda {

// out[r, o] += bias[o]; out [rows, features] of the given type, features a multiple of 8, out and
// bias aligned to 16 bytes. Throws CudaError.
void AddBias(void* out, DataType out_type, const float* bias, int64_t rows, int64_t features,
             cudaStream_t stream);

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_LINEAR_ADD_BIAS_H_
