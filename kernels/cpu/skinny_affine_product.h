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

// More rows are oneDNN's: from there on its tiles win.
inline constexpr int64_t kMaxSkinnyAffineRows = 8;

// Outputs whose levels lie together.
inline constexpr int64_t kAffineColumns = 16;

struct AffineFormat {
  int level_bits = 0;    // 4: levels 0 .. 15; 8: 0 .. 255
  int group_inputs = 0;  // inputs that share min and step: 32, with 8 bits also 16
};

// Memory holds [out / kAffineColumns][groups] records, one of a group of inputs by kAffineColumns
// outputs: their f32 min, their f32 step, then their levels: of 8 bits as [group_inputs]
// [kAffineColumns] bytes, of 4 bits as [group_inputs / 8][kAffineColumns] words of 32 bits with
// eight consecutive inputs, the first in the lowest bits. Padding is zero in all three.
struct SkinnyAffineProduct {
  AffineFormat format;
  const std::byte* records = nullptr;  // aligned to 64
  int64_t groups = 0;                  // ceil(in_features / group_inputs)
  const float* x = nullptr;            // [rows, groups * group_inputs]
  const float* x_sums = nullptr;       // [rows, groups]: of the inputs of each group
  int64_t rows = 0;                    // 1 .. kMaxSkinnyAffineRows
  SkinnyOutput out;
};

// What the product wants of activations x [rows, in_features]: x_out [rows, groups * group_inputs]
// with zeros behind, x_sums [rows, groups].
void WidenActivations(const AffineFormat& format, const Bf16* x, int64_t rows, int64_t in_features,
                      float* x_out, float* x_sums);

// Computes the 16-column groups first_group .. last_group - 1 of ceil(out_features / 16). Serial;
// any thread, threads share nothing. The processor must have AVX-512 F, BW, VL and BF16.
void ComputeSkinnyAffineProduct(const SkinnyAffineProduct& product, int64_t first_group,
                                int64_t last_group);

}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_SKINNY_AFFINE_PRODUCT_H_
