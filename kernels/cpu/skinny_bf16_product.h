// Skinny products (few rows of activations) with a packed bf16 weight. One row of activations is
// bound by the memory that the weight is read from; oneDNN's tiles reach a third of that, plain dot
// products in the order of memory all.

#ifndef SWAA_KERNELS_CPU_SKINNY_BF16_PRODUCT_H_
#define SWAA_KERNELS_CPU_SKINNY_BF16_PRODUCT_H_

#include <cstdint>

#include "kernels/cpu/skinny_output.h"
#include "kernels/types.h"

namespace swaa::kernels::cpu {

// More rows are oneDNN's: from there on its tiles win over dot products.
inline constexpr int64_t kMaxSkinnyBf16Rows = 4;

struct SkinnyBf16Product {
  const Bf16* weight = nullptr;  // [out/column_block][pairs padded][column_block][2]
  int64_t column_block = 0;      // a multiple of 16, at most 64
  int64_t block_stride = 0;      // elements
  int64_t in_pairs = 0;          // ceil(in_features / 2)
  const Bf16* x = nullptr;  // [rows, x_stride]: 2 * in_pairs values a row, the odd last one zero
  int64_t x_stride = 0;     // elements, even
  int64_t rows = 0;         // 1 .. kMaxSkinnyBf16Rows
  SkinnyOutput out;
};

// Computes the 16-column groups first_group .. last_group - 1 of ceil(out_features / 16). Serial;
// any thread, threads share nothing. The processor must have AVX-512 F, BW, VL and BF16.
void ComputeSkinnyBf16Product(const SkinnyBf16Product& product, int64_t first_group,
                              int64_t last_group);

}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_SKINNY_BF16_PRODUCT_H_
