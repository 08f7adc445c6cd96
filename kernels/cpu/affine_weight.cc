// Recognition and packing of affine-quantised weights.

#include "kernels/cpu/affine_weight.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "kernels/cpu/region_errors.h"

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

int64_t HeadBytes(const AffineFormat& format) { return 2 * kAffineColumns * (format.f16 ? 2 : 4); }

int64_t LevelBytes(const AffineFormat& format) {
  return kAffineColumns * format.group_inputs * format.level_bits / 8;
}

int64_t RecordBytes(const AffineFormat& format) { return HeadBytes(format) + LevelBytes(format); }

// Writes one output's group into column `column` of a zeroed record with f32 min and step.
void WriteGroup(const AffineFormat& format, const AffineGroup& group, int64_t column,
                std::byte* record) {
  auto* heads = reinterpret_cast<float*>(record);
  heads[column] = group.min;
  heads[kAffineColumns + column] = group.step;
  std::byte* levels = record + HeadBytes(format);
  if (format.level_bits == 8) {
    for (int i = 0; i < format.group_inputs; ++i) {
      levels[(i / 2 * kAffineColumns + column) * 2 + i % 2] =
          static_cast<std::byte>(group.levels[i]);
    }
    return;
  }
  auto* words = reinterpret_cast<uint16_t*>(levels);
  for (int i = 0; i < format.group_inputs; ++i) {
    words[(i / 8 * kAffineColumns + column) * 2 + i % 2] |=
        static_cast<uint16_t>(group.levels[i] << (4 * (i % 8 / 2)));
  }
}

// The bits of a number that f16 holds exactly.
uint16_t HalfBits(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  const float magnitude = std::abs(value);
  if (magnitude < 0x1p-14f) return sign | static_cast<uint16_t>(magnitude * 0x1p24f);
  return sign | static_cast<uint16_t>(((bits & 0x7fffffffu) >> 13) - (112 << 10));
}

// Records whose min and step are f16 numbers, written as f32, as records of f16.
void Narrow(const AffineFormat& from, int64_t records, const std::byte* source, std::byte* target) {
  AffineFormat to = from;
  to.f16 = true;
#pragma omp parallel for
  for (int64_t record = 0; record < records; ++record) {
    const std::byte* old_record = source + record * RecordBytes(from);
    std::byte* new_record = target + record * RecordBytes(to);
    const auto* heads = reinterpret_cast<const float*>(old_record);
    auto* halves = reinterpret_cast<uint16_t*>(new_record);
    std::transform(heads, heads + 2 * kAffineColumns, halves, HalfBits);
    std::copy_n(old_record + HeadBytes(from), LevelBytes(from), new_record + HeadBytes(to));
  }
}

// What the trial of a format found.
struct Trial {
  std::atomic<bool> fits = true;  // every group
  std::atomic<bool> f16 = true;   // so far all min and step are f16 numbers
};

// `count` rows (at most kAffineColumns) as one block of zeroed records.
void PackBlock(const AffineFormat& format, const float* rows, int64_t count, int64_t in_features,
               std::byte* records, Trial* trial) {
  const int max_level = (1 << format.level_bits) - 1;
  for (int64_t first = 0; first < in_features; first += format.group_inputs) {
    const auto inputs = std::min<int64_t>(format.group_inputs, in_features - first);
    for (int64_t r = 0; r < count; ++r) {
      const std::span<const float> values(rows + r * in_features + first, inputs);
      std::optional<AffineGroup> group = FindAffineGroup(values, max_level);
      if (!group.has_value()) {
        trial->fits.store(false, std::memory_order_relaxed);
        return;
      }
      if (trial->f16.load(std::memory_order_relaxed)) {
        const std::optional<AffineGroup> narrow = FindF16Group(values, *group, max_level);
        if (narrow.has_value()) {
          group = narrow;
        } else {
          trial->f16.store(false, std::memory_order_relaxed);
        }
      }
      WriteGroup(format, *group, r, records);
    }
    records += RecordBytes(format);
  }
}

// All blocks into zeroed memory; what was written is void where a group does not fit.
void PackBlocks(const AffineFormat& format, int64_t out_features, int64_t in_features,
                const RowReader& read_rows, std::byte* records, Trial* trial) {
  const int64_t groups = (in_features + format.group_inputs - 1) / format.group_inputs;
  const int64_t blocks = (out_features + kAffineColumns - 1) / kAffineColumns;
  RegionErrors errors;
#pragma omp parallel
  {
    std::vector<float> rows;
#pragma omp for schedule(dynamic)
    for (int64_t block = 0; block < blocks; ++block) {
      if (!trial->fits.load(std::memory_order_relaxed)) continue;
      errors.Run([&] {
        rows.resize(kAffineColumns * in_features);
        const int64_t first = block * kAffineColumns;
        const int64_t count = std::min(kAffineColumns, out_features - first);
        read_rows(first, count, rows.data());
        PackBlock(format, rows.data(), count, in_features,
                  records + block * groups * RecordBytes(format), trial);
      });
    }
  }
  errors.Rethrow();
}

// Memory for records that stay.
absl::StatusOr<std::shared_ptr<std::byte>> AllocateRecords(int64_t bytes, SliceAllocator& memory) {
  if (bytes < kLargeBytes) return memory.Allocate(bytes);
  SWAA_ASSIGN_OR_RETURN(std::shared_ptr<Buffer> buffer, AllocateBuffer(bytes));
  std::byte* data = buffer->data();
  return std::shared_ptr<std::byte>(std::move(buffer), data);
}

// What a trial wrote, narrowed or as a slice; or itself, where it is too large to be held twice.
absl::StatusOr<AffineWeight> Keep(AffineFormat format, int64_t groups, int64_t records,
                                  std::shared_ptr<Buffer> trial, bool f16, SliceAllocator& memory) {
  if (!f16 && trial->bytes() >= kLargeBytes) {
    const int64_t bytes = trial->bytes();
    const std::byte* data = trial->data();
    return AffineWeight{format, groups, {std::move(trial), data}, bytes};
  }
  AffineFormat kept = format;
  kept.f16 = f16;
  const int64_t bytes = records * RecordBytes(kept);
  SWAA_ASSIGN_OR_RETURN(auto slice, AllocateRecords(bytes, memory));
  if (f16) {
    Narrow(format, records, trial->data(), slice.get());
  } else {
    std::copy_n(trial->data(), bytes, slice.get());
  }
  return AffineWeight{kept, groups, std::move(slice), bytes};
}

// The f16 number next to a value; not finite beyond the largest.
float NearestHalf(float value) {
  const float magnitude = std::abs(value);
  if (magnitude < 0x1p-14f) return (value + 0.75f) - 0.75f;  // whole steps of 2^-24
  const float shifted = value * 8193.0f;                     // 2^13 + 1: 11 bits stay
  const float half = shifted - (shifted - value);
  return std::abs(half) <= 65504.0f ? half : kInfinity;
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

std::optional<AffineGroup> FindF16Group(std::span<const float> group, const AffineGroup& affine,
                                        int max_level) {
  const Values values(group);
  const Range range = RangeOf(values);
  const float tolerance = 0x1p-21f * std::max(std::abs(range.low), std::abs(range.high));
  const int steps = *std::max_element(affine.levels.begin(), affine.levels.begin() + group.size());
  // What the levels were multiplied by, whether they were counted from above, and how many lie
  // below the lowest: the values do not tell.
  for (int factor = 1; factor * steps <= max_level; ++factor) {
    const float step = NearestHalf(affine.step / static_cast<float>(factor));
    const auto all_steps = static_cast<float>(factor * steps);
    if (!(std::abs(step * all_steps - (range.high - range.low)) <= 2 * tolerance)) continue;
    for (const bool down : {false, true}) {
      const float direction = down ? -step : step;
      const float end = down ? range.high : range.low;
      for (int below = 0; below + factor * steps <= max_level; ++below) {
        const float exact = end - direction * static_cast<float>(below);
        const float min = NearestHalf(exact);
        if (!(std::abs(min - exact) <= tolerance)) continue;
        AffineGroup found{.min = min, .step = direction};
        bool all = true;
        for (size_t i = 0; i < group.size(); ++i) {
          const int up = factor * affine.levels[i];
          const int level = below + (down ? factor * steps - up : up);
          found.levels[i] = static_cast<uint8_t>(level);
          all &= std::abs(min + direction * static_cast<float>(level) - group[i]) <= tolerance;
        }
        if (all) return found;
      }
    }
    if (steps == 0) return std::nullopt;
  }
  return std::nullopt;
}

absl::StatusOr<std::optional<AffineWeight>> PackAffineWeight(int64_t out_features,
                                                             int64_t in_features,
                                                             const RowReader& read_rows,
                                                             SliceAllocator& memory) {
  for (const AffineFormat& format : kFormats) {
    const int64_t groups = (in_features + format.group_inputs - 1) / format.group_inputs;
    const int64_t records = (out_features + kAffineColumns - 1) / kAffineColumns * groups;
    // Few pages of it are touched where the format does not fit.
    SWAA_ASSIGN_OR_RETURN(auto memory_of_trial, AllocateBuffer(records * RecordBytes(format)));
    Trial trial;
    PackBlocks(format, out_features, in_features, read_rows, memory_of_trial->data(), &trial);
    if (!trial.fits) continue;
    SWAA_ASSIGN_OR_RETURN(AffineWeight weight, Keep(format, groups, records,
                                                    std::move(memory_of_trial), trial.f16, memory));
    return weight;
  }
  return std::nullopt;
}

}  // namespace swaa::kernels::cpu
