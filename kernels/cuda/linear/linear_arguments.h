// What one matrix product computes: out[r, o] = sum_i x[r, i] * weight[o, i] (+ bias[o]).

#ifndef SWAA_KERNELS_CUDA_LINEAR_LINEAR_ARGUMENTS_H_
#define SWAA_KERNELS_CUDA_LINEAR_LINEAR_ARGUMENTS_H_

#include <cstdint>

#include "kernels/types.h"

namespace swaa::kernels::cuda {

// Device memory; weight, x and out aligned to 16 bytes. in_features, out_features and x_stride are
// multiples of 8.
struct LinearArguments {
  const Bf16* weight = nullptr;  // [out_features, in_features]
  int64_t out_features = 0;
  int64_t in_features = 0;
  const Bf16* x = nullptr;      // [rows, in_features]
  int64_t x_stride = 0;         // elements from row to row; 0: in_features
  const float* bias = nullptr;  // [out_features] or null
  void* out = nullptr;          // [rows, out_features]
  DataType out_type = DataType::kBf16;
  int64_t rows = 0;
  // weight is [gate; up], out [rows, out_features / 2] is silu(x * gate^T) * (x * up^T).
  bool silu_mul = false;
  // The kernel that follows reads x without waiting for the product: it begins when x is complete,
  // not before.
  bool shares_x = false;

  int64_t stride() const { return x_stride == 0 ? in_features : x_stride; }
};

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_LINEAR_LINEAR_ARGUMENTS_H_
