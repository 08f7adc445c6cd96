// What skinny products do with their sums.

#ifndef SWAA_KERNELS_CPU_SKINNY_OUTPUT_H_
#define SWAA_KERNELS_CPU_SKINNY_OUTPUT_H_

#include <cstdint>

namespace swaa::kernels::cpu {

struct SkinnyOutput {
  const float* bias = nullptr;  // [out_features] or null
  void* data = nullptr;         // [rows, out_features]
  int64_t out_features = 0;
  bool bf16 = false;
};

}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_SKINNY_OUTPUT_H_
