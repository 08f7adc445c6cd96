// The pages of one request: what is held, what goes back, and what the device's table is told.

#include "engine/cache/sequence_pages.h"

#include <map>
#include <set>

#include <gtest/gtest.h>

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
  std::vector<PageTableUpdate> updates;
  pages.ReleaseAll(kSlot, &pool, &updates);
  for (const PageTableUpdate& update : updates) table[{update.layer, update.block}] = update.page;
  for (const auto& [key, page] : table) EXPECT_EQ(page, kernels::kZeroPage);
  EXPECT_EQ(pool.used_pages(), 0);
  EXPECT_EQ(pages.held(), 0);
  EXPECT_EQ(pages.peak_held(), peak);
  EXPECT_EQ(pages.Missing(1), kLayers);
}

}  // namespace
}  // namespace swaa
