// How the skinny product is dealt to thread blocks. The weight is cut into tiles of
// kSkinnyTileRows output features by k_tile input features; tiles are numbered along the inputs
// first, and block b takes the consecutive tiles Begin(b) .. Begin(b + 1) - 1, so that all blocks
// read the same number of bytes, give or take a tile. A row of tiles shared by several blocks is
// summed in the order of its blocks. Nothing here depends on the rows of x: a row's sums are added
// in the same order whatever its company.

#ifndef SWAA_KERNELS_CUDA_LINEAR_SKINNY_PARTITION_H_
#define SWAA_KERNELS_CUDA_LINEAR_SKINNY_PARTITION_H_

#include <cstdint>

namespace swaa::kernels::cuda {

// Output features of a tile.
inline constexpr int kSkinnyTileRows = 128;

struct SkinnyPartition {
  int32_t row_tiles = 0;  // tiles along the output features
  int32_t k_tiles = 0;    // tiles along the input features
  int32_t blocks = 0;     // 1 .. tiles()

  constexpr int32_t tiles() const { return row_tiles * k_tiles; }

  // First tile of the block; Begin(blocks) is tiles().
  constexpr int32_t Begin(int32_t block) const {
    return static_cast<int32_t>(int64_t{tiles()} * block / blocks);
  }

  // The block whose range holds the tile: the largest b with Begin(b) <= tile.
  constexpr int32_t BlockOf(int32_t tile) const {
    return static_cast<int32_t>(((int64_t{tile} + 1) * blocks - 1) / tiles());
  }

  // The blocks that share a row of tiles are FirstBlock .. LastBlock.
  constexpr int32_t FirstBlock(int32_t row_tile) const { return BlockOf(row_tile * k_tiles); }
  constexpr int32_t LastBlock(int32_t row_tile) const {
    return BlockOf((row_tile + 1) * k_tiles - 1);
  }
};

// Where a block leaves its share of a row of tiles: a block has two slots, for it enters at most
// one row of tiles in the middle and leaves at most one unfinished that it has begun.
constexpr int32_t PartialSlot(int32_t block, int32_t first_block) {
  return 2 * block + (block == first_block ? 1 : 0);
}

// Tiles for a weight of `features` output features (of one half, where silu(gate) * up is computed:
// a tile then holds as many features of gate as of up) dealt to at most max_blocks, each of at
// least min_tiles.
constexpr SkinnyPartition MakeSkinnyPartition(int64_t features, int64_t in_features, bool silu_mul,
                                              int32_t k_tile, int32_t max_blocks,
                                              int32_t min_tiles) {
  const int64_t tile_features = silu_mul ? kSkinnyTileRows / 2 : kSkinnyTileRows;
  SkinnyPartition partition;
  partition.row_tiles = static_cast<int32_t>((features + tile_features - 1) / tile_features);
  partition.k_tiles = static_cast<int32_t>((in_features + k_tile - 1) / k_tile);
  const int32_t wanted = partition.tiles() / min_tiles;
  partition.blocks = wanted < 1 ? 1 : wanted < max_blocks ? wanted : max_blocks;
  return partition;
}

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_LINEAR_SKINNY_PARTITION_H_
