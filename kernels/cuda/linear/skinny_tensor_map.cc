// Encoding of tensor maps. The driver's function is asked for at run time: the library links
// against no driver.

#include "kernels/cuda/linear/skinny_tensor_map.h"

#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/linear/skinny_hopper_grid.h"

namespace swaa::kernels::cuda {
namespace {

PFN_cuTensorMapEncodeTiled_v12000 Encoder() {
  static const PFN_cuTensorMapEncodeTiled_v12000 encoder = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
    SWAA_CUDA_CHECK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                                     cudaEnableDefault, &result));
    if (result != cudaDriverEntryPointSuccess) {
      throw CudaError(cudaErrorNotSupported, "CUDA: the driver has no cuTensorMapEncodeTiled");
    }
    return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
  }();
  return encoder;
}

// sizes and boxes innermost first; strides in elements, of the dimensions but the innermost.
CUtensorMap Encode(const Bf16* base, uint32_t dimensions, const cuuint64_t* sizes,
                   const cuuint64_t* strides, const cuuint32_t* box) {
  const cuuint32_t steps[] = {1, 1, 1, 1};
  cuuint64_t stride_bytes[3] = {};
  for (uint32_t i = 0; i + 1 < dimensions; ++i) stride_bytes[i] = strides[i] * sizeof(Bf16);
  CUtensorMap map;
  const CUresult result =
      Encoder()(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, dimensions, const_cast<Bf16*>(base), sizes,
                stride_bytes, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    throw CudaError(cudaErrorInvalidValue,
                    absl::StrCat("CUDA: cuTensorMapEncodeTiled of a matrix [", sizes[1], ", ",
                                 sizes[0], "] gave ", static_cast<int>(result)));
  }
  return map;
}

}  // namespace

SkinnyTensorMaps MakeSkinnyTensorMaps(const LinearArguments& product, int32_t tile_rows,
                                      int32_t x_rows) {
  const auto in = static_cast<cuuint64_t>(product.in_features);
  const auto out = static_cast<cuuint64_t>(product.out_features);
  const auto rows = static_cast<cuuint32_t>(tile_rows);
  const cuuint64_t sizes[] = {in, out};
  const cuuint64_t strides[] = {in};
  const cuuint32_t box[] = {kSkinnyBoxColumns, rows};
  const cuuint64_t pair_sizes[] = {in, 8, 2, out / 16};
  const cuuint64_t pair_strides[] = {in, in * (out / 2), in * 8};
  const cuuint32_t pair_box[] = {kSkinnyBoxColumns, 8, 2, rows / 16};
  const cuuint64_t x_sizes[] = {in, static_cast<cuuint64_t>(product.rows)};
  const cuuint64_t x_strides[] = {static_cast<cuuint64_t>(product.stride())};
  const cuuint32_t x_box[] = {kSkinnyBoxColumns, static_cast<cuuint32_t>(x_rows)};
  return {.weight = product.silu_mul ? Encode(product.weight, 4, pair_sizes, pair_strides, pair_box)
                                     : Encode(product.weight, 2, sizes, strides, box),
          .x = Encode(product.x, 2, x_sizes, x_strides, x_box)};
}

}  // namespace swaa::kernels::cuda
