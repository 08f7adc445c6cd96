// The plain types that every kernel speaks: element types, pages, spans of visible keys. No engine
// type is known here.

#ifndef SWAA_KERNELS_TYPES_H_
#define SWAA_KERNELS_TYPES_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace swaa::kernels {

// Positions in a page. A page holds K and V of one layer for this many consecutive positions, all
// KV heads; how they lie inside is the backend's own affair.
inline constexpr int kPageTokens = 64;

// The page that released and not yet written entries of a page table name. Its bytes are zero for
// ever.
inline constexpr int32_t kZeroPage = 0;

enum class DataType : uint8_t { kF32, kBf16 };

inline constexpr int64_t SizeOf(DataType type) { return type == DataType::kF32 ? 4 : 2; }

// A bfloat16 as stored in memory.
struct Bf16 {
  uint16_t bits;
};

// Rounds to nearest, ties to even. NaN stays NaN.
inline Bf16 ToBf16(float value) {
  uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((bits >> 16) | 0x40u)};
  bits += 0x7fffu + ((bits >> 16) & 1u);
  return {static_cast<uint16_t>(bits >> 16)};
}

inline float ToFloat(Bf16 value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
}

// Which keys a query at position i sees in one layer: j <= i and (i - j < window or j < sinks).
// Recipes become spans in engine/recipe; kernels know nothing else about them.
struct KeySpan {
  static constexpr int32_t kFull = std::numeric_limits<int32_t>::max();
  int32_t window = kFull;  // keys, the query's own position included; kFull: every earlier position
  int32_t sinks = 0;       // first positions, visible on top of the window

  bool full() const { return window == kFull; }
  bool operator==(const KeySpan&) const = default;
};

// Consecutive query rows of one sequence in a step. Row first_row + r has position first_position +
// r; keys 0 .. first_position + query_count - 1 of the sequence are in its pages (this step's
// included) when attention runs.
struct SequenceRows {
  int32_t slot = 0;            // row of the page table
  int32_t first_row = 0;       // in the step's rows
  int32_t query_count = 0;     // rows; at least 1
  int32_t first_position = 0;  // absolute
};

// The page table as it lies on the device: int32 [slots, layers, max_pages]; entry b names the page
// of positions 64 b .. 64 b + 63.
struct PageTableView {
  const int32_t* entries = nullptr;
  int32_t num_layers = 0;
  int32_t max_pages = 0;

  const int32_t* Pages(int32_t slot, int32_t layer) const {
    return entries + (static_cast<int64_t>(slot) * num_layers + layer) * max_pages;
  }
};

// The pool of pages: page p is the page_bytes bytes at base + p * page_bytes. base is aligned
// to 64.
struct PagePoolView {
  std::byte* base = nullptr;
  int64_t page_bytes = 0;

  std::byte* Page(int32_t page) const { return base + page * page_bytes; }
};

}  // namespace swaa::kernels

#endif  // SWAA_KERNELS_TYPES_H_
