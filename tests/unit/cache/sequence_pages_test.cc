// The pages of one request: what is held, what goes back, and what the device's table is told.

#include "engine/cache/sequence_pages.h"

#include <map>
#include <set>

#include <gtest/gtest.h>

#include "engine/cache/retired_pages.h"
#include "engine/recipe/visibility.h"

namespace swaa {
namespace {

constexpr int32_t kLayers = 3;
constexpr int32_t kSlot = 5;

Recipe WindowRecipe() {
  Recipe recipe;
  recipe.window = 100;
  recipe.sinks = 70;
  recipe.layer_full = {true, false, false};
  recipe.decode_full = {false, true, false};
  return recipe;
}

TEST(SequencePages, TableFollowsWhatIsHeld) {
  PagePool pool(200);
  SequencePages pages(kLayers);
  const Recipe recipe = WindowRecipe();
  std::map<std::pair<int32_t, int32_t>, int32_t> table;  // (layer, block) -> page
  int64_t peak = 0;
  for (int64_t computed : {60, 64, 65, 200, 201, 500, 501, 640, 705}) {
    std::vector<PageTableUpdate> updates;
    const int64_t missing = pages.Missing(computed);
    const int64_t before = pool.available_pages();
    pages.Extend(computed, kSlot, &pool, &updates);
    EXPECT_EQ(before - pool.available_pages(), missing);
    peak = std::max(peak, pages.held());
    pages.ReleaseInvisible(recipe, computed, kSlot, &pool, &updates);
    for (const PageTableUpdate& update : updates) {
      EXPECT_EQ(update.slot, kSlot);
      table[{update.layer, update.block}] = update.page;
    }
    EXPECT_EQ(pages.held(), PagesHeld(recipe, computed));
    EXPECT_EQ(pool.used_pages(), pages.held());
    std::set<int32_t> distinct;
    for (const auto& [key, page] : table) {
      EXPECT_EQ(page, pages.Page(key.first, key.second));
      const bool kept = KeepsPage(Kept(recipe, key.first, computed), key.second);
      EXPECT_EQ(page != kernels::kZeroPage, kept) << key.first << " " << key.second;
      if (page != kernels::kZeroPage) {
        EXPECT_TRUE(distinct.insert(page).second);
      }
    }
  }
  EXPECT_EQ(pages.peak_held(), peak);
  EXPECT_EQ(pages.Exclusive(pool), pages.held());
  // Piece by piece, from the end on.
  int64_t left = pages.held();
  while (left > 0) {
    const int64_t released = pages.ReleaseSome(&pool, 4);
    EXPECT_GE(released, std::min<int64_t>(4, left));
    EXPECT_LE(released, 4 + kLayers);
    left -= released;
    EXPECT_EQ(pages.held(), left);
    EXPECT_EQ(pool.used_pages(), left);
  }
  EXPECT_EQ(pages.peak_held(), peak);
}

TEST(RetiredPages, GoBackOnceTheirLastStepIsSettledAndNotAllAtOnce) {
  PagePool pool(200);
  RetiredPages retired(&pool);
  std::vector<PageTableUpdate> updates;
  SequencePages early(kLayers);
  SequencePages late(kLayers);
  early.Extend(640, kSlot, &pool, &updates);
  late.Extend(64, kSlot, &pool, &updates);
  retired.Add(std::move(late), 8);
  retired.Add(std::move(early), 7);
  EXPECT_EQ(retired.pages(), 11 * kLayers);
  EXPECT_EQ(retired.Release(1000), 0);
  retired.Settle(7);
  EXPECT_EQ(retired.Release(5), 2 * kLayers) << "whole blocks of all layers";
  EXPECT_EQ(pool.used_pages(), 9 * kLayers);
  EXPECT_EQ(retired.Release(1000), 8 * kLayers);
  EXPECT_EQ(retired.pages(), kLayers) << "step 8 may still read them";
  retired.Settle(8);
  EXPECT_EQ(retired.Release(1000), kLayers);
  EXPECT_TRUE(retired.empty());
  EXPECT_EQ(pool.used_pages(), 0);
}

}  // namespace
}  // namespace swaa
