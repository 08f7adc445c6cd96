// Recognition and packing of grid weights.

#include "kernels/cpu/grid_weight.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "base/status_macros.h"

namespace swaa::kernels::cpu {
namespace {

// Smallest first.
constexpr GridFormat kFormats[] = {{4, 32}, {8, 32}, {8, 16}};

constexpr int64_t kLargeBytes = int64_t{16} << 20;

// Loops over values go in lanes of this width, which the compiler makes vectors of.
constexpr int kLanes = 8;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// To the nearest whole number; |value| < 2^22. Unlike std::round it is two vector additions.
float Nearest(float value) {
  constexpr float kShift = 0x1.8p23f;
  return (value + kShift) - kShift;
}

// Values padded to whole lanes by repeating the first one.
struct Lanes {
  explicit Lanes(std::span<const float> from)
      : count((static_cast<int>(from.size()) + kLanes - 1) / kLanes * kLanes) {
    std::copy(from.begin(), from.end(), values);
    std::fill(values + from.size(), values + count, from[0]);
  }
  int count;
  float values[kMaxGroupInputs];
};

struct Range {
  float low;
  float high;
};

// A NaN among the values may go unnoticed.
Range RangeOf(const Lanes& lanes) {
  float low[kLanes], high[kLanes];
  std::copy_n(lanes.values, kLanes, low);
  std::copy_n(lanes.values, kLanes, high);
  for (int i = kLanes; i < lanes.count; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) {
      const float value = lanes.values[i + l];
      low[l] = value < low[l] ? value : low[l];
      high[l] = value > high[l] ? value : high[l];
    }
  }
  return {*std::min_element(low, low + kLanes), *std::max_element(high, high + kLanes)};
}

// The smallest distance of a value from the nearer end of the range that is more than `noise`; the
// range's width where all values lie at its ends.
float SmallestDistance(const Lanes& lanes, const Range& range, float noise) {
  float smallest[kLanes];
  std::fill_n(smallest, kLanes, range.high - range.low);
  for (int i = 0; i < lanes.count; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) {
      const float above = lanes.values[i + l] - range.low;
      const float below = range.high - lanes.values[i + l];
      const float nearer = above < below ? above : below;
      const float counted = nearer > noise ? nearer : smallest[l];
      smallest[l] = counted < smallest[l] ? counted : smallest[l];
    }
  }
  return *std::min_element(smallest, smallest + kLanes);
}

// The level of every value on a grid from `low` on; false where one is off it.
bool FindLevels(const Lanes& lanes, float low, float step, float tolerance, float* levels) {
  const float per_step = step > 0 ? 1 / step : 0;
  for (int i = 0; i < lanes.count; i += kLanes) {
    int misses = 0;
    for (int l = 0; l < kLanes; ++l) {
      const float value = lanes.values[i + l];
      levels[i + l] = Nearest((value - low) * per_step);
      const float error = std::abs(value - (low + step * levels[i + l]));
      misses += error <= tolerance ? 0 : 1;  // a NaN misses
    }
    if (misses > 0) return false;
  }
  return true;
}

int64_t RecordBytes(const GridFormat& format) {
  return kGridColumns * static_cast<int64_t>(2 * sizeof(float)) +
         kGridColumns * format.group_inputs * format.level_bits / 8;
}

// Writes one output's grid into column `column` of a zeroed record.
void WriteGrid(const GridFormat& format, const Grid& grid, int64_t column, std::byte* record) {
  auto* heads = reinterpret_cast<float*>(record);
  heads[column] = grid.min;
  heads[kGridColumns + column] = grid.step;
  std::byte* levels = record + 2 * kGridColumns * sizeof(float);
  for (int i = 0; i < format.group_inputs; ++i) {
    if (format.level_bits == 8) {
      levels[i * kGridColumns + column] = static_cast<std::byte>(grid.levels[i]);
    } else {
      levels[(i / 8 * kGridColumns + column) * 4 + i % 8 / 2] |=
          static_cast<std::byte>(grid.levels[i] << (i % 2 * 4));
    }
  }
}

// Rows first_row .. first_row + count - 1 (at most kGridColumns) as one block of zeroed records.
// False where a group does not fit.
bool PackBlock(const GridFormat& format, const float* rows, int64_t count, int64_t in_features,
               std::byte* records) {
  for (int64_t first = 0; first < in_features; first += format.group_inputs) {
    const auto inputs = std::min<int64_t>(format.group_inputs, in_features - first);
    for (int64_t r = 0; r < count; ++r) {
      const std::span<const float> values(rows + r * in_features + first, inputs);
      const std::optional<Grid> grid = FindGrid(values, (1 << format.level_bits) - 1);
      if (!grid.has_value()) return false;
      WriteGrid(format, *grid, r, records);
    }
    records += RecordBytes(format);
  }
  return true;
}

// All blocks into zeroed memory. False where a group does not fit; what was written then is void.
bool PackBlocks(const GridFormat& format, int64_t out_features, int64_t in_features,
                const RowReader& read_rows, std::byte* records) {
  const int64_t groups = (in_features + format.group_inputs - 1) / format.group_inputs;
  const int64_t blocks = (out_features + kGridColumns - 1) / kGridColumns;
  std::atomic<bool> fits = true;
#pragma omp parallel
  {
    std::vector<float> rows(kGridColumns * in_features);
#pragma omp for schedule(dynamic)
    for (int64_t block = 0; block < blocks; ++block) {
      if (!fits.load(std::memory_order_relaxed)) continue;
      const int64_t first = block * kGridColumns;
      const int64_t count = std::min(kGridColumns, out_features - first);
      read_rows(first, count, rows.data());
      if (!PackBlock(format, rows.data(), count, in_features,
                     records + block * groups * RecordBytes(format))) {
        fits.store(false, std::memory_order_relaxed);
      }
    }
  }
  return fits.load();
}

// What a trial wrote, as a slice; or itself, where it is too large to be held twice.
absl::StatusOr<std::shared_ptr<const std::byte>> Keep(std::shared_ptr<Buffer> trial,
                                                      SliceAllocator& memory) {
  if (trial->bytes() >= kLargeBytes) {
    const std::byte* data = trial->data();
    return std::shared_ptr<const std::byte>(std::move(trial), data);
  }
  SWAA_ASSIGN_OR_RETURN(auto slice, memory.Allocate(trial->bytes()));
  std::copy_n(trial->data(), trial->bytes(), slice.get());
  return slice;
}

}  // namespace

std::optional<Grid> FindGrid(std::span<const float> values, int max_level) {
  const Lanes lanes(values);
  const Range range = RangeOf(lanes);
  const float width = range.high - range.low;
  if (!(width < kInfinity)) return std::nullopt;
  const float tolerance = 0x1p-21f * std::max(std::abs(range.low), std::abs(range.high));
  float levels[kMaxGroupInputs];
  const auto found = [&](float step) -> std::optional<Grid> {
    if (!FindLevels(lanes, range.low, step, tolerance, levels)) return std::nullopt;
    Grid grid{.min = range.low, .step = step};
    for (size_t i = 0; i < values.size(); ++i) {
      grid.levels[i] = static_cast<uint8_t>(static_cast<int>(levels[i]));
    }
    return grid;
  };
  if (width == 0) return found(0);
  // Distances are whole steps but for rounding, so half of the finest step parts them from none;
  // the smallest one is one step, or two, ...
  const auto finest = static_cast<float>(max_level);
  const float distance = SmallestDistance(lanes, range, width / (2 * finest));
  for (float parts = 1;; ++parts) {
    const float steps = Nearest(width / distance * parts);
    if (steps > finest) return std::nullopt;
    if (auto grid = found(width / steps); grid.has_value()) return grid;
  }
}

absl::StatusOr<std::optional<GridWeight>> PackGridWeight(int64_t out_features, int64_t in_features,
                                                         const RowReader& read_rows,
                                                         SliceAllocator& memory) {
  for (const GridFormat& format : kFormats) {
    const int64_t groups = (in_features + format.group_inputs - 1) / format.group_inputs;
    const int64_t blocks = (out_features + kGridColumns - 1) / kGridColumns;
    const int64_t bytes = blocks * groups * RecordBytes(format);
    // Few pages of it are touched where the format does not fit.
    SWAA_ASSIGN_OR_RETURN(auto trial, AllocateBuffer(bytes));
    if (!PackBlocks(format, out_features, in_features, read_rows, trial->data())) continue;
    SWAA_ASSIGN_OR_RETURN(auto records, Keep(std::move(trial), memory));
    return GridWeight{format, groups, std::move(records), bytes};
  }
  return std::nullopt;
}

}  // namespace swaa::kernels::cpu
