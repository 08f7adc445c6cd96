// Recognises affine-quantised weights and packs them for skinny_affine_product.h. Which
// format a checkpoint had is not asked: the values tell.

#ifndef SWAA_KERNELS_CPU_AFFINE_WEIGHT_H_
#define SWAA_KERNELS_CPU_AFFINE_WEIGHT_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "absl/status/statusor.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/skinny_affine_product.h"
#include "kernels/operators.h"

namespace swaa::kernels::cpu {

inline constexpr int kMaxGroupInputs = 32;

// Values min + step * levels[i].
struct AffineGroup {
  float min = 0;
  float step = 0;                                 // 0: all values are equal
  std::array<uint8_t, kMaxGroupInputs> levels{};  // zero behind the group
};

// The coarsest quantisation of at most max_level steps (1 .. 255) that holds all values of a group
// (1 .. kMaxGroupInputs of them), each within 2^-21 of the largest magnitude: what rounding to f32
// makes of the quantised value. Its step is not negative. Null where there is none, or where a
// value is not finite.
std::optional<AffineGroup> FindAffineGroup(std::span<const float> group, int max_level);

// The same group with a min and a step that f16 holds exactly, as the files of most quantised types
// have them, and at most max_level; its step may be negative. Null where there is none within the
// same distance of the values.
std::optional<AffineGroup> FindF16Group(std::span<const float> group, const AffineGroup& affine,
                                        int max_level);

// A weight in the layout of skinny_affine_product.h.
struct AffineWeight {
  AffineFormat format;
  int64_t groups = 0;  // of one output's inputs
  std::shared_ptr<const std::byte> records;
  int64_t bytes = 0;
};

// Reads all rows in parallel and packs them in the smallest format that holds every group, min and
// step in f16 where that is exact for all of them; small ones lie in slices of `memory`. Nothing
// where a group is not affine, found out at the first such one. RESOURCE_EXHAUSTED without memory.
absl::StatusOr<std::optional<AffineWeight>> PackAffineWeight(int64_t out_features,
                                                             int64_t in_features,
                                                             const RowReader& read_rows,
                                                             SliceAllocator& memory);

}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_AFFINE_WEIGHT_H_
