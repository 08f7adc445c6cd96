// The partition of skinny products under its former names.

#ifndef SWAA_KERNELS_CUDA_LINEAR_FEW_ROWS_PARTITION_H_
#define SWAA_KERNELS_CUDA_LINEAR_FEW_ROWS_PARTITION_H_

#include <cstdint>

#include "kernels/cuda/linear/skinny_partition.h"

namespace swaa::kernels::cuda {

using FewRowsPartition = SkinnyPartition;

constexpr FewRowsPartition MakeFewRowsPartition(int64_t features, int64_t in_features,
                                                bool silu_mul, int32_t k_tile, int32_t max_blocks,
                                                int32_t min_tiles) {
  return MakeSkinnyPartition(features, in_features, silu_mul, k_tile, max_blocks, min_tiles);
}

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_LINEAR_FEW_ROWS_PARTITION_H_
