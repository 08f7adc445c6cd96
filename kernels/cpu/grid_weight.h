// Recognises weights whose values lie on grids and packs them for few_rows_grid_product.h. Which
// format a checkpoint had is not asked: the values tell.

#ifndef SWAA_KERNELS_CPU_GRID_WEIGHT_H_
#define SWAA_KERNELS_CPU_GRID_WEIGHT_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "absl/status/statusor.h"
#include "kernels/cpu/few_rows_grid_product.h"
#include "kernels/cpu/memory.h"
#include "kernels/operators.h"

namespace swaa::kernels::cpu {

inline constexpr int kMaxGroupInputs = 32;

// Values min + step * levels[i].
struct Grid {
  float min = 0;
  float step = 0;                                 // not negative; 0: all values are equal
  std::array<uint8_t, kMaxGroupInputs> levels{};  // zero behind the group
};

// The coarsest grid of at most max_level steps (1 .. 255) on which all values of a group (1 ..
// kMaxGroupInputs of them) lie, each within 2^-21 of the largest magnitude: what rounding to f32
// makes of a grid. Null where there is none, or where a value is not finite.
std::optional<Grid> FindGrid(std::span<const float> group, int max_level);

// A weight in the layout of few_rows_grid_product.h.
struct GridWeight {
  GridFormat format;
  int64_t groups = 0;  // of one output's inputs
  std::shared_ptr<const std::byte> records;
  int64_t bytes = 0;
};

// Reads all rows in parallel and packs them in the smallest format that holds every group; small
// ones lie in slices of `memory`. Nothing where a group is on no grid, found out at the first one.
// RESOURCE_EXHAUSTED without memory.
absl::StatusOr<std::optional<GridWeight>> PackGridWeight(int64_t out_features, int64_t in_features,
                                                         const RowReader& read_rows,
                                                         SliceAllocator& memory);

}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_GRID_WEIGHT_H_
