// Attention on CUDA: TMA descriptors of the page pool and of queries. Encoded once per address, so
// that launches stay valid in captured graphs.

#ifndef SWAA_KERNELS_CUDA_ATTENTION_TENSOR_MAPS_H_
#define SWAA_KERNELS_CUDA_ATTENTION_TENSOR_MAPS_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/types.h"

namespace swaa::kernels::cuda {

// A CUtensorMap, without the driver's header.
struct alignas(64) TensorMap {
  uint64_t opaque[16] = {};
};

// Of a pool of pages [K|V][kv_head][64 positions][head_dim]. A coordinate is {column, position,
// 64-column block, (page * 2 + is_v) * kv_heads + kv_head}; with head_dim 96 the second block is
// reached by its column instead, and its columns past 96 read as zero.
struct PoolMaps {
  TensorMap block;  // boxes of 64 positions x 64 columns
  TensorMap page;   // boxes of 64 positions x all columns; with head_dim 96 like `block`
};

// pages: in the pool. INTERNAL when the driver refuses (it has no TMA).
absl::StatusOr<PoolMaps> EncodePoolMaps(const Bf16* pool, int64_t pages, int32_t kv_heads,
                                        int32_t head_dim);

// Of q [rows, row_stride], of which the first heads * head_dim columns are read in boxes of
// box_rows rows; rows past the end read as zero.
absl::StatusOr<TensorMap> EncodeQueryMap(const Bf16* q, int64_t rows, int64_t row_stride,
                                         int32_t heads, int32_t head_dim, int32_t box_rows);

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_ATTENTION_TENSOR_MAPS_H_
