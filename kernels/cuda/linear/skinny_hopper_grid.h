// How the skinny product is dealt to thread blocks on Hopper. The weight is cut into tiles of
// tile_rows rows by kSkinnyBoxColumns input features. A cluster of blocks takes whole rows of
// tiles, its blocks consecutive parts of the input features: a row's sum is complete within the
// cluster. Nothing here depends on the rows of x.

#ifndef SWAA_KERNELS_CUDA_LINEAR_SKINNY_HOPPER_GRID_H_
#define SWAA_KERNELS_CUDA_LINEAR_SKINNY_HOPPER_GRID_H_

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace swaa::kernels::cuda {

// Input features of a tile: 128 bytes, the span of the copy engine's swizzle, which lays the
// 16-byte piece c of row r at piece c ^ (r & 7).
inline constexpr int kSkinnyBoxColumns = 64;
// Three warpgroups of 64 rows each.
inline constexpr int32_t kSkinnyMaxTileRows = 192;
inline constexpr int32_t kSkinnyMaxCluster = 4;

struct SkinnyHopperGrid {
  int32_t tile_rows = 0;          // a multiple of 8; with silu_mul of 16, half of gate, half of up
  int32_t row_tiles = 0;          // tiles along the rows of the weight
  int32_t k_tiles = 0;            // and along the input features
  int32_t tiles_per_cluster = 1;  // rows of tiles; 1 where a cluster has several blocks
  int32_t cluster = 1;            // blocks

  constexpr int32_t blocks() const {
    return (row_tiles + tiles_per_cluster - 1) / tiles_per_cluster * cluster;
  }
};

// The tiles of a block, input features first.
struct SkinnyTileRange {
  int32_t row_begin, row_end, k_begin, k_end;

  constexpr SkinnyTileRange(const SkinnyHopperGrid& grid, int32_t block)
      : row_begin(block / grid.cluster * grid.tiles_per_cluster),
        row_end(row_begin + grid.tiles_per_cluster),
        k_begin(grid.k_tiles * (block % grid.cluster) / grid.cluster),
        k_end(grid.k_tiles * (block % grid.cluster + 1) / grid.cluster) {
    if (row_end > grid.row_tiles) row_end = grid.row_tiles;
  }
  constexpr int32_t count() const { return (row_end - row_begin) * (k_end - k_begin); }
};

// How many clusters of 1, 2 and 4 blocks are resident at once, a block a multiprocessor.
using SkinnyClusters = std::array<int32_t, 3>;
static_assert(1 << (SkinnyClusters().size() - 1) == kSkinnyMaxCluster);

// Deals a weight of `rows` rows to the clusters of at most max_cluster blocks that are likely to be
// through first: a block's stages take as long as their tiles are high, but for the lowest, and a
// sum over a cluster some 2 us, as long as 400 rows of stages (both measured on an H100).
constexpr SkinnyHopperGrid MakeSkinnyHopperGrid(int64_t rows, int64_t in_features, bool silu_mul,
                                                const SkinnyClusters& resident,
                                                int32_t max_cluster) {
  constexpr int64_t kLeastRowsOfStage = 44, kRowsOfSum = 400;
  const int64_t unit = silu_mul ? 16 : 8;
  const int64_t units = (rows + unit - 1) / unit;
  const int64_t max_units = kSkinnyMaxTileRows / unit;
  SkinnyHopperGrid best;
  best.k_tiles = static_cast<int32_t>((in_features + kSkinnyBoxColumns - 1) / kSkinnyBoxColumns);
  int64_t best_cost = 0;
  for (size_t i = 0; i < resident.size() && 1 << i <= max_cluster; ++i) {
    const int32_t cluster = 1 << i;
    const int64_t clusters = resident[i];
    if (clusters == 0 || best.k_tiles < cluster) break;
    const int64_t tiles = (units + clusters * max_units - 1) / (clusters * max_units);
    if (cluster > 1 && tiles > 1) break;
    const int64_t tile_units = (units + clusters * tiles - 1) / (clusters * tiles);
    const int64_t stages = tiles * ((best.k_tiles + cluster - 1) / cluster);
    const int64_t cost =
        stages * std::max(tile_units * unit, kLeastRowsOfStage) + (cluster > 1 ? kRowsOfSum : 0);
    // Of equals the larger cluster has the fewer stages.
    if (best_cost != 0 && cost > best_cost) continue;
    best_cost = cost;
    best.tile_rows = static_cast<int32_t>(tile_units * unit);
    best.row_tiles = static_cast<int32_t>((units + tile_units - 1) / tile_units);
    best.tiles_per_cluster = static_cast<int32_t>(tiles);
    best.cluster = cluster;
  }
  return best;
}

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_LINEAR_SKINNY_HOPPER_GRID_H_
