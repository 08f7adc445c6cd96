// Kernels, CPU backend: where keys and values lie inside a page.
//
// A page is [K|V][kv_head][block], a block holding one head's keys (or values) of kPageTokens
// positions:
//
// clang-format off
//          keys                                   values
//   bf16   [key/16][head_dim/2][16 keys][2 dims]  [key/32][head_dim/16][16 pairs][16 dims][2 keys]
//   f32    [key/16][head_dim  ][16 keys]          [key][head_dim]
//
//   bf16, 16 keys of two dimensions:  k0.d0 k0.d1  k1.d0 k1.d1  ...  k15.d0 k15.d1
//   bf16, 2 keys of 16 dimensions:    k0.d0 k1.d0  k0.d1 k1.d1  ...  k0.d15 k1.d15
// clang-format on
//
// In bf16 every operand of a tile product is then a contiguous kilobyte, and every operand of a dot
// product of bf16 pairs one vector.

#ifndef SWAA_KERNELS_CPU_PAGE_LAYOUT_H_
#define SWAA_KERNELS_CPU_PAGE_LAYOUT_H_

#include <cstdint>

#include "kernels/types.h"

namespace swaa::kernels::cpu {

// Keys side by side in a block of keys, and positions in a run of pairs of a block of values.
inline constexpr int kKeyTile = 16;
inline constexpr int kValueTile = 32;

// Bytes of one head's keys (or values) in a page.
constexpr int64_t BlockBytes(DataType kv, int32_t head_dim) {
  return static_cast<int64_t>(kPageTokens) * head_dim * (kv == DataType::kF32 ? 4 : 2);
}

// Byte offsets of a head's blocks in a page.
constexpr int64_t KeyBlockOffset(DataType kv, int32_t head_dim, int32_t kv_head) {
  return kv_head * BlockBytes(kv, head_dim);
}
constexpr int64_t ValueBlockOffset(DataType kv, int32_t head_dim, int32_t kv_heads,
                                   int32_t kv_head) {
  return (kv_heads + kv_head) * BlockBytes(kv, head_dim);
}

}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_PAGE_LAYOUT_H_
