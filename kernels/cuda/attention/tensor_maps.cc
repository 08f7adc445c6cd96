// TMA descriptors of the page pool and of queries.

#include "kernels/cuda/attention/tensor_maps.h"

#include <bit>
#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda/cuda_check.h"

namespace swaa::kernels::cuda {
namespace {

// By the runtime, so that the program needs no driver library to start.
absl::StatusOr<PFN_cuTensorMapEncodeTiled_v12000> EncodeFunction() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult result;
  const cudaError_t code = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                                            12000, cudaEnableDefault, &result);
  if (code != cudaSuccess) return CudaStatus(code, "looking up cuTensorMapEncodeTiled");
  if (result != cudaDriverEntryPointSuccess || function == nullptr) {
    return absl::InternalError(
        "the driver has no cuTensorMapEncodeTiled: it must be one for CUDA 12 or newer");
  }
  return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
}

// strides: in bytes, of dimensions 1 and up.
absl::StatusOr<TensorMap> Encode(const Bf16* base, int rank, const uint64_t* dims,
                                 const uint64_t* strides, const uint32_t* box) {
  SWAA_ASSIGN_OR_RETURN(const auto encode, EncodeFunction());
  const uint32_t ones[5] = {1, 1, 1, 1, 1};
  CUtensorMap map;
  const CUresult result =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, rank, const_cast<Bf16*>(base), dims, strides,
             box, ones, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    return absl::InternalError(absl::StrCat("cuTensorMapEncodeTiled refused a tensor of rank ",
                                            rank, " with error ", static_cast<int>(result),
                                            ": address and strides must be multiples of 16 bytes"));
  }
  return std::bit_cast<TensorMap>(map);
}

}  // namespace

absl::StatusOr<PoolMaps> EncodePoolMaps(const Bf16* pool, int64_t pages, int32_t kv_heads,
                                        int32_t head_dim) {
  const bool whole = head_dim % 64 == 0;
  const uint64_t columns = head_dim, blocks = whole ? columns / 64 : 1;
  const uint64_t dims[4] = {whole ? 64 : columns, kPageTokens, blocks,
                            static_cast<uint64_t>(pages) * 2 * kv_heads};
  const uint64_t strides[3] = {columns * 2, 128, kPageTokens * columns * 2};
  const uint32_t block_box[4] = {64, kPageTokens, 1, 1};
  const uint32_t page_box[4] = {64, kPageTokens, static_cast<uint32_t>(blocks), 1};
  PoolMaps maps;
  SWAA_ASSIGN_OR_RETURN(maps.block, Encode(pool, 4, dims, strides, block_box));
  SWAA_ASSIGN_OR_RETURN(maps.page, Encode(pool, 4, dims, strides, page_box));
  return maps;
}

absl::StatusOr<TensorMap> EncodeQueryMap(const Bf16* q, int64_t rows, int64_t row_stride,
                                         int32_t heads, int32_t head_dim, int32_t box_rows) {
  const bool whole = head_dim % 64 == 0;
  const uint64_t columns = head_dim, blocks = whole ? columns / 64 : 1;
  const uint64_t dims[3] = {whole ? 64 : columns, static_cast<uint64_t>(rows), heads * blocks};
  const uint64_t strides[2] = {static_cast<uint64_t>(row_stride) * 2, whole ? 128 : columns * 2};
  const uint32_t box[3] = {64, static_cast<uint32_t>(box_rows), static_cast<uint32_t>(blocks)};
  return Encode(q, 3, dims, strides, box);
}

}  // namespace swaa::kernels::cuda
