// Tensor maps of the skinny product: how the copy engine of Hopper finds boxes of a weight
// and of x.

#ifndef SWAA_KERNELS_CUDA_LINEAR_SKINNY_TENSOR_MAP_H_
#define SWAA_KERNELS_CUDA_LINEAR_SKINNY_TENSOR_MAP_H_

#include <cstdint>
#include <cuda.h>

#include "kernels/cuda/linear/linear_arguments.h"

namespace swaa::kernels::cuda {

struct SkinnyTensorMaps {
  // [out_features, in_features] in boxes of [tile_rows, 64]; with silu_mul [out_features / 16,
  // gate or up, 8, in_features] in boxes of [tile_rows / 16, 2, 8, 64].
  CUtensorMap weight;
  CUtensorMap x;  // [rows, in_features] in boxes of [x_rows, 64]; what lies outside is zero
};

// Boxes of tile_rows rows of the weight and x_rows of x. Throws CudaError.
SkinnyTensorMaps MakeSkinnyTensorMaps(const LinearArguments& product, int32_t tile_rows,
                                      int32_t x_rows);

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_LINEAR_SKINNY_TENSOR_MAP_H_
