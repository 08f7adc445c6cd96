// Skinny products (few rows of activations) with a packed bf16 weight. One row of activations is
// bound by the memory that the weight is read from; oneDNN's tiles reach a third of that, plain dot
// products in the order of memory all.

#ifndef SWAA_KERNELS_CPU_SKINNY_BF16_PRODUCT_H_
#define SWAA_KERNELS_CPU_SKINNY_BF16_PRODUCT_H_

#include <cstdint>

#include "kernels/cpu/skinny_output.h"
#include "kernels/types.h"

namespace swaa::kernels::cpu {

// Rows of one product: the sums of a column block fit the registers. More rows are several
// products.
inline constexpr int64_t kBf16Rows = 6;
inline constexpr int64_t kMaxBf16Products = 6;

struct SkinnyBf16Product {
  const Bf16* weight = nullptr;  // [out/column_block][pairs padded][column_block][2]
  int64_t column_block = 0;      // a multiple of 16, at most 64
  int64_t block_stride = 0;      // elements
  int64_t in_pairs = 0;          // ceil(in_features / 2)
  const int32_t* x = nullptr;    // [in_pairs, rows] pairs of bf16 inputs, the odd last one zero
  int64_t rows = 0;              // 1 .. kBf16Rows
  SkinnyOutput out;
};

// What the product wants of activations x [rows, in_features]: x_out [ceil(in_features / 2), rows].
void PrepareActivations(const Bf16* x, int64_t rows, int64_t in_features, int32_t* x_out);

// Computes the 16-column groups first_group .. last_group - 1 of ceil(out_features / 16) of `count`
// products (1 .. kMaxBf16Products) of the same weight, which is read once. Serial; any thread,
// threads share nothing. The processor must have AVX-512 F, BW, VL and BF16.
void ComputeSkinnyBf16Products(const SkinnyBf16Product* products, int64_t count,
                               int64_t first_group, int64_t last_group);

}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_SKINNY_BF16_PRODUCT_H_
