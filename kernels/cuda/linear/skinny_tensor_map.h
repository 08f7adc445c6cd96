// Tensor maps of the skinny product: how the copy engine of Hopper finds boxes of a weight
// and of x.

#ifndef SWAA_KERNELS_CUDA_LINEAR_SKINNY_TENSOR_MAP_H_
#define SWAA_KERNELS_CUDA_LINEAR_SKINNY_TENSOR_MAP_H_

#include <cstdint>
#include <cuda.h>

#include "kernels/cuda/linear/linear_arguments.h"

namespace swaa::kernels::cuda {

// Input features of a box: 128 bytes, the span of the engine's swizzle, which lays the 16-byte
// piece c of row r at piece c ^ (r & 7).
inline constexpr int kSkinnyBoxColumns = 64;

struct SkinnyTensorMaps {
  // [1, out_features, in_features] in boxes of a tile; with silu_mul [gate or up, out_features / 2,
  // in_features] in boxes of [2, 8, 64].
  CUtensorMap weight;
  CUtensorMap x;  // [rows, in_features] in boxes of [box_rows, 64]; what lies outside is zero
};

// Throws CudaError.
SkinnyTensorMaps MakeSkinnyTensorMaps(const LinearArguments& product, int32_t box_rows);

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_LINEAR_SKINNY_TENSOR_MAP_H_
