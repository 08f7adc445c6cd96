// Kernels, CPU backend: the tile instructions, as inline assembly. GCC 12's own _tile_loadconfig is
// declared to read 8 bytes and _tile_loadd not to read memory at all, so that stores before them
// may be moved behind them. No compiler option is needed to build this; amx_tile and amx_bf16 to
// run it.
//
// A thread must load a configuration before it uses tiles, and release it after: a library that the
// thread calls in between may have left another one, or none.

#ifndef SWAA_KERNELS_CPU_AMX_TILE_H_
#define SWAA_KERNELS_CPU_AMX_TILE_H_

#include <cstdint>

namespace swaa::kernels::cpu {
namespace {

// A tile row is 64 bytes: 16 floats or 32 bf16.
constexpr int kTileRows = 16;
constexpr int kTileFloats = kTileRows * 16;
constexpr int kTileBf16s = kTileRows * 32;
constexpr int64_t kTileRowBytes = 64;

// The operand of ldtilecfg.
struct alignas(64) TileConfig {
  uint8_t palette;
  uint8_t start_row;
  uint8_t reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};

// Tiles 0 to 5 get `rows` rows, tiles 6 and 7, the right-hand operands, all 16; rows are full.
[[maybe_unused]] inline void ConfigureTiles(int rows) {
  TileConfig config = {};
  config.palette = 1;
  for (int tile = 0; tile < 8; ++tile) {
    config.row_bytes[tile] = kTileRowBytes;
    config.rows[tile] = static_cast<uint8_t>(tile < 6 ? rows : kTileRows);
  }
  asm volatile("ldtilecfg %0" : : "m"(config) : "memory");
}

[[maybe_unused]] inline void ReleaseTiles() { asm volatile("tilerelease" : : : "memory"); }

template <int kTile>
inline __attribute__((always_inline)) void ZeroTile() {
  asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
}

template <int kTile>
inline __attribute__((always_inline)) void LoadTile(const void* from,
                                                    int64_t stride_bytes = kTileRowBytes) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2"
               :
               : "r"(from), "r"(stride_bytes), "i"(kTile)
               : "memory");
}

template <int kTile>
inline __attribute__((always_inline)) void StoreTile(void* to,
                                                     int64_t stride_bytes = kTileRowBytes) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)"
               :
               : "r"(to), "r"(stride_bytes), "i"(kTile)
               : "memory");
}

// kSum[m, n] += sum over k and i of kLeft[m, 2k + i] * kRight[k, 2n + i], bf16 into f32.
template <int kSum, int kLeft, int kRight>
inline __attribute__((always_inline)) void MultiplyTiles() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kLeft), "i"(kRight));
}

}  // namespace
}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_AMX_TILE_H_
