// Skinny products (few rows of activations) with an affine-quantised weight, as quantised
// checkpoints have them: in every group of consecutive inputs of an output, value = min + step *
// level. Levels take a quarter or half of the bytes of bf16, and skinny products are bound by the
// bytes that they read; nothing is lost, activations stay as they are.

#ifndef SWAA_KERNELS_CPU_SKINNY_AFFINE_PRODUCT_H_
#define SWAA_KERNELS_CPU_SKINNY_AFFINE_PRODUCT_H_

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/skinny_output.h"
#include "kernels/types.h"

namespace swaa::kernels::cpu {

// Rows of one product: their sums of a group fit the registers beside the levels. More rows are
// several products over the same columns, from here on no slower than one would be.
inline constexpr int64_t kAffineRows = 23;
inline constexpr int64_t kMaxAffineProducts = 2;

// Outputs whose levels lie together.
inline constexpr int64_t kAffineColumns = 16;

struct AffineFormat {
  int level_bits = 0;    // 4: levels 0 .. 15; 8: 0 .. 255
  int group_inputs = 0;  // inputs that share min and step: 32, with 8 bits also 16
  bool f16 = false;      // min and step are f16, which is exact; else f32
};

// Memory holds [out / kAffineColumns][groups] records, one of a group of inputs by kAffineColumns
// outputs: their min, their step, then their levels, so that pairs of inputs lie side by side: of 8
// bits as [group_inputs / 2][kAffineColumns][2] bytes, of 4 bits as [group_inputs / 8]
// [kAffineColumns][2] words of 16 bits, of which word p holds inputs p, p + 2, p + 4 and p + 6, the
// first in the lowest bits. Padding is zero in all three.
struct SkinnyAffineProduct {
  AffineFormat format;
  const std::byte* records = nullptr;  // aligned to 64
  int64_t groups = 0;                  // ceil(in_features / group_inputs)
  const int32_t* x = nullptr;          // [groups * group_inputs / 2, rows] pairs of bf16 inputs
  const float* x_sums = nullptr;       // [groups, rows]: of the inputs of each group
  int64_t rows = 0;                    // 1 .. kAffineRows
  SkinnyOutput out;
};

// What the product wants of activations x [rows, in_features]: x_out [groups * group_inputs / 2,
// rows] with zeros behind, x_sums [groups, rows].
void PrepareActivations(const AffineFormat& format, const Bf16* x, int64_t rows,
                        int64_t in_features, int32_t* x_out, float* x_sums);

// Computes the 16-column groups first_group .. last_group - 1 of ceil(out_features / 16) of `count`
// (1 .. kMaxAffineProducts) products with one weight. Serial; any thread, threads share nothing.
// The processor must have AVX-512 F, BW, VL and BF16.
void ComputeSkinnyAffineProducts(const SkinnyAffineProduct* products, int64_t count,
                                 int64_t first_group, int64_t last_group);

}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_SKINNY_AFFINE_PRODUCT_H_
