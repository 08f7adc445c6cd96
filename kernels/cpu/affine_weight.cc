// Recognition and packing of affine-quantised weights.

#include "kernels/cpu/affine_weight.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "base/status_macros.h"

namespace swaa::kernels::cpu {
namespace {

// Smallest first.
constexpr AffineFormat kFormats[] = {{4, 32}, {8, 32}, {8, 16}};

constexpr int64_t kLargeBytes = int64_t{16} << 20;

// The compiler's vectors: these loops are most of what packing costs.
using Vector = float __attribute__((vector_size(16)));
using IntVector = int32_t __attribute__((vector_size(16)));
constexpr int kLanes = 4;
constexpr int kMaxVectors = kMaxGroupInputs / kLanes;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

Vector Absolute(Vector v) {
  return reinterpret_cast<Vector>(reinterpret_cast<IntVector>(v) & 0x7fffffff);
}

Vector Smaller(Vector a, Vector b) { return a < b ? a : b; }
Vector Larger(Vector a, Vector b) { return a > b ? a : b; }

float SmallestLane(Vector v) { return std::min(std::min(v[0], v[1]), std::min(v[2], v[3])); }

// To the nearest whole number; |v| < 2^22.
template <typename Number>
Number Nearest(Number v) {
  constexpr float kShift = 0x1.8p23f;
  return (v + kShift) - kShift;
}

// Values of a group, padded to whole vectors by repeating the first one.
struct Values {
  explicit Values(std::span<const float> from)
      : count((static_cast<int>(from.size()) + kLanes - 1) / kLanes) {
    float padded[kMaxGroupInputs];
    std::copy(from.begin(), from.end(), padded);
    std::fill(padded + from.size(), padded + count * kLanes, from[0]);
    std::memcpy(vectors, padded, count * sizeof(Vector));
  }
  int count;
  Vector vectors[kMaxVectors];
};

struct Range {
  float low;
  float high;
};

// A NaN among the values may go unnoticed.
Range RangeOf(const Values& values) {
  Vector low = values.vectors[0], high = low;
  for (int i = 1; i < values.count; ++i) {
    low = Smaller(values.vectors[i], low);
    high = Larger(values.vectors[i], high);
  }
  return {SmallestLane(low), -SmallestLane(-high)};
}

// The smallest distance of a value from the nearer end of the range that is more than `noise`; the
// range's width where all values lie at its ends.
float SmallestDistance(const Values& values, const Range& range, float noise) {
  Vector smallest = Vector{} + (range.high - range.low);
  for (int i = 0; i < values.count; ++i) {
    const Vector v = values.vectors[i];
    const Vector nearer = Smaller(v - range.low, range.high - v);
    smallest = nearer > noise ? Smaller(nearer, smallest) : smallest;
  }
  return SmallestLane(smallest);
}

// The level of every value, in steps above `low`; false where one is between levels.
bool FindLevels(const Values& values, float low, float step, float tolerance,
                Vector (&levels)[kMaxVectors]) {
  const float per_step = step > 0 ? 1 / step : 0;
  for (int i = 0; i < values.count; ++i) {
    const Vector v = values.vectors[i];
    levels[i] = Nearest((v - low) * per_step);
    const IntVector near = Absolute(v - (low + step * levels[i])) <= tolerance;  // not for a NaN
    if ((near[0] & near[1] & near[2] & near[3]) == 0) return false;
  }
  return true;
}

int64_t RecordBytes(const AffineFormat& format) {
  return kAffineColumns * static_cast<int64_t>(2 * sizeof(float)) +
         kAffineColumns * format.group_inputs * format.level_bits / 8;
}

// Writes one output's group into column `column` of a zeroed record.
void WriteGroup(const AffineFormat& format, const AffineGroup& group, int64_t column,
                std::byte* record) {
  auto* heads = reinterpret_cast<float*>(record);
  heads[column] = group.min;
  heads[kAffineColumns + column] = group.step;
  std::byte* levels = record + 2 * kAffineColumns * sizeof(float);
  if (format.level_bits == 8) {
    for (int i = 0; i < format.group_inputs; ++i) {
      levels[i * kAffineColumns + column] = static_cast<std::byte>(group.levels[i]);
    }
    return;
  }
  auto* words = reinterpret_cast<uint32_t*>(levels);
  for (int i = 0; i < format.group_inputs; i += 8) {
    uint32_t word = 0;
    for (int j = 0; j < 8; ++j) word |= static_cast<uint32_t>(group.levels[i + j]) << (4 * j);
    words[i / 8 * kAffineColumns + column] = word;
  }
}

// Rows first_row .. first_row + count - 1 (at most kAffineColumns) as one block of zeroed records.
// False where a group does not fit.
bool PackBlock(const AffineFormat& format, const float* rows, int64_t count, int64_t in_features,
               std::byte* records) {
  for (int64_t first = 0; first < in_features; first += format.group_inputs) {
    const auto inputs = std::min<int64_t>(format.group_inputs, in_features - first);
    for (int64_t r = 0; r < count; ++r) {
      const std::span<const float> values(rows + r * in_features + first, inputs);
      const std::optional<AffineGroup> group =
          FindAffineGroup(values, (1 << format.level_bits) - 1);
      if (!group.has_value()) return false;
      WriteGroup(format, *group, r, records);
    }
    records += RecordBytes(format);
  }
  return true;
}

// All blocks into zeroed memory. False where a group does not fit; what was written then is void.
bool PackBlocks(const AffineFormat& format, int64_t out_features, int64_t in_features,
                const RowReader& read_rows, std::byte* records) {
  const int64_t groups = (in_features + format.group_inputs - 1) / format.group_inputs;
  const int64_t blocks = (out_features + kAffineColumns - 1) / kAffineColumns;
  std::atomic<bool> fits = true;
#pragma omp parallel
  {
    std::vector<float> rows(kAffineColumns * in_features);
#pragma omp for schedule(dynamic)
    for (int64_t block = 0; block < blocks; ++block) {
      if (!fits.load(std::memory_order_relaxed)) continue;
      const int64_t first = block * kAffineColumns;
      const int64_t count = std::min(kAffineColumns, out_features - first);
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

std::optional<AffineGroup> FindAffineGroup(std::span<const float> group, int max_level) {
  const Values values(group);
  const Range range = RangeOf(values);
  const float width = range.high - range.low;
  if (!(width < kInfinity)) return std::nullopt;
  const float tolerance = 0x1p-21f * std::max(std::abs(range.low), std::abs(range.high));
  const auto found = [&](float step) -> std::optional<AffineGroup> {
    Vector levels[kMaxVectors];
    if (!FindLevels(values, range.low, step, tolerance, levels)) return std::nullopt;
    AffineGroup affine{.min = range.low, .step = step};
    for (int i = 0; i < values.count; ++i) {
      const IntVector whole = __builtin_convertvector(levels[i], IntVector);
      for (int l = 0; l < kLanes; ++l)
        affine.levels[i * kLanes + l] = static_cast<uint8_t>(whole[l]);
    }
    std::fill(affine.levels.begin() + group.size(), affine.levels.end(), 0);
    return affine;
  };
  if (width == 0) return found(0);
  // Distances are whole steps but for rounding, so half of the finest step parts them from none;
  // the smallest one is one step, or two, ...
  const auto finest = static_cast<float>(max_level);
  const float distance = SmallestDistance(values, range, width / (2 * finest));
  for (float parts = 1;; ++parts) {
    const float steps = Nearest(width / distance * parts);
    if (steps > finest) return std::nullopt;
    if (auto affine = found(width / steps); affine.has_value()) return affine;
  }
}

absl::StatusOr<std::optional<AffineWeight>> PackAffineWeight(int64_t out_features,
                                                             int64_t in_features,
                                                             const RowReader& read_rows,
                                                             SliceAllocator& memory) {
  for (const AffineFormat& format : kFormats) {
    const int64_t groups = (in_features + format.group_inputs - 1) / format.group_inputs;
    const int64_t blocks = (out_features + kAffineColumns - 1) / kAffineColumns;
    const int64_t bytes = blocks * groups * RecordBytes(format);
    // Few pages of it are touched where the format does not fit.
    SWAA_ASSIGN_OR_RETURN(auto trial, AllocateBuffer(bytes));
    if (!PackBlocks(format, out_features, in_features, read_rows, trial->data())) continue;
    SWAA_ASSIGN_OR_RETURN(auto records, Keep(std::move(trial), memory));
    return AffineWeight{format, groups, std::move(records), bytes};
  }
  return std::nullopt;
}

}  // namespace swaa::kernels::cpu
