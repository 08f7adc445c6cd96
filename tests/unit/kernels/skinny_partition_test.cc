// How the CUDA skinny product is dealt to blocks. Plain arithmetic: needs no GPU.

#include "kernels/cuda/linear/skinny_partition.h"

#include <algorithm>
#include <cstdint>
#include <set>

#include <gtest/gtest.h>

namespace swaa::kernels::cuda {
namespace {

// Every tile belongs to one block, blocks differ by at most one tile, and the arithmetic that finds
// a tile's block agrees with the ranges.
TEST(SkinnyPartitionTest, BlocksCoverTilesEvenly) {
  for (const int64_t features : {8, 128, 136, 576, 2560, 19456}) {
    for (const int64_t in : {8, 64, 72, 576, 2560, 9728}) {
      for (const int32_t max_blocks : {1, 7, 132, 264}) {
        for (const int32_t min_tiles : {1, 2, 5}) {
          const SkinnyPartition partition =
              MakeSkinnyPartition(features, in, false, 64, max_blocks, min_tiles);
          ASSERT_GE(partition.blocks, 1);
          ASSERT_LE(partition.blocks, max_blocks);
          ASSERT_EQ(partition.Begin(0), 0);
          ASSERT_EQ(partition.Begin(partition.blocks), partition.tiles());
          int32_t fewest = partition.tiles();
          int32_t most = 0;
          for (int32_t block = 0; block < partition.blocks; ++block) {
            const int32_t begin = partition.Begin(block);
            const int32_t end = partition.Begin(block + 1);
            fewest = std::min(fewest, end - begin);
            most = std::max(most, end - begin);
            for (int32_t tile = begin; tile < end; ++tile) {
              ASSERT_EQ(partition.BlockOf(tile), block);
            }
          }
          EXPECT_GE(fewest, std::min(min_tiles, partition.tiles()));
          EXPECT_LE(most - fewest, 1);
        }
      }
    }
  }
}

TEST(SkinnyPartitionTest, SharesOfARowOfTilesNeverMeet) {
  for (const int64_t features : {128, 576, 2560, 6144, 19456}) {
    for (const int32_t max_blocks : {3, 132, 264}) {
      const SkinnyPartition partition =
          MakeSkinnyPartition(features, 2560, false, 64, max_blocks, 1);
      std::set<int32_t> slots;
      for (int32_t row_tile = 0; row_tile < partition.row_tiles; ++row_tile) {
        const int32_t first = partition.FirstBlock(row_tile);
        const int32_t last = partition.LastBlock(row_tile);
        if (first == last) continue;
        for (int32_t block = first; block <= last; ++block) {
          const int32_t slot = PartialSlot(block, first);
          EXPECT_LT(slot, 2 * partition.blocks);
          EXPECT_TRUE(slots.insert(slot).second)
              << "row of tiles " << row_tile << ", slot " << slot;
        }
      }
    }
  }
}

TEST(SkinnyPartitionTest, SiluMulHalvesTheFeaturesOfATile) {
  EXPECT_EQ(MakeSkinnyPartition(9728, 2560, true, 64, 132, 2).row_tiles, 152);
  EXPECT_EQ(MakeSkinnyPartition(19456, 2560, false, 64, 132, 2).row_tiles, 152);
  EXPECT_EQ(MakeSkinnyPartition(72, 8, true, 64, 132, 2).row_tiles, 2);
}

}  // namespace
}  // namespace swaa::kernels::cuda
