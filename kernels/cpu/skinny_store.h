// Sums of skinny products on their way out, for files that are compiled with AVX-512 and bf16:
// internal to each.

#ifndef SWAA_KERNELS_CPU_SKINNY_STORE_H_
#define SWAA_KERNELS_CPU_SKINNY_STORE_H_

#include <immintrin.h>

#include "kernels/cpu/skinny_output.h"
#include "kernels/types.h"

namespace swaa::kernels::cpu {
namespace {

// The sums of 16 columns (fewer at the end of the row) from `column` on.
inline __attribute__((always_inline)) void StoreSums(const SkinnyOutput& out, int64_t row,
                                                     int64_t column, __m512 sum) {
  const int64_t left = out.out_features - column;
  const __mmask16 mask = left >= 16 ? 0xffff : static_cast<__mmask16>((1u << left) - 1);
  const int64_t index = row * out.out_features + column;
  if (out.bias != nullptr) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, out.bias + column));
  if (out.bf16) {
    const __m256i rounded = (__m256i)_mm512_cvtneps_pbh(sum);
    _mm256_mask_storeu_epi16(static_cast<Bf16*>(out.data) + index, mask, rounded);
    return;
  }
  float* data = static_cast<float*>(out.data) + index;
  _mm512_mask_storeu_ps(data, mask, sum);
}

}  // namespace
}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_SKINNY_STORE_H_
