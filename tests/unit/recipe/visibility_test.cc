// What recipes make visible, against the formula written out.

#include "engine/recipe/visibility.h"

#include <random>

#include <gtest/gtest.h>

#include "tests/unit/testing/random_recipe.h"
#include "tests/unit/testing/seed.h"

namespace swaa {
namespace {

constexpr int32_t kLayers = 4;

// design: visible(l, i, j) = j <= i and (l in F or i - j < W or j < K or (l in D and i >= P)).
bool Visible(const Recipe& recipe, int32_t prompt, int32_t layer, int64_t i, int64_t j) {
  if (j > i) return false;
  if (!recipe.window.has_value()) return true;
  return recipe.layer_full[layer] || i - j < int64_t{*recipe.window} || j < int64_t{recipe.sinks} ||
         (recipe.decode_full[layer] && i >= prompt);
}

TEST(Visibility, IsTheFormula) {
  const uint32_t seed = testing::Seed();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 30; ++round) {
    const Recipe recipe = testing::RandomRecipe(&random, kLayers);
    const auto prompt = static_cast<int32_t>(1 + random() % 300);
    const auto total = static_cast<int32_t>(prompt + random() % 60);
    const auto first = static_cast<int32_t>(random() % total);
    int64_t attended = 0;
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      for (int32_t i = 0; i < total; ++i) {
        const kernels::KeySpan span = SpanOf(recipe, layer, PhaseOf(i, prompt));
        int64_t keys = 0;
        for (int32_t j = 0; j <= i; ++j) {
          const bool visible = Visible(recipe, prompt, layer, i, j);
          const bool by_span = span.full() || i - j < span.window || j < span.sinks;
          ASSERT_EQ(by_span, visible) << "layer " << layer << " i " << i << " j " << j;
          keys += visible;
        }
        ASSERT_EQ(VisibleKeys(span, i), keys) << i;
        if (i >= first) attended += keys;
      }
    }
    EXPECT_EQ(AttendedKeys(recipe, prompt, first, total), attended);
  }
}

TEST(Visibility, PagesHeldAreTheKeptPositions) {
  const uint32_t seed = testing::Seed();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 200; ++round) {
    const Recipe recipe = testing::RandomRecipe(&random, kLayers);
    const auto computed = static_cast<int64_t>(random() % 500);
    int64_t pages = 0;
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      const KeptPositions kept = Kept(recipe, layer, computed);
      for (int64_t block = 0; block * 64 < computed; ++block) {
        bool needed = false;
        for (int64_t p = block * 64; p < (block + 1) * 64; ++p) {
          needed |= !recipe.window.has_value() || recipe.layer_full[layer] ||
                    recipe.decode_full[layer] || p < int64_t{recipe.sinks} ||
                    p >= computed - int64_t{*recipe.window} + 1;
        }
        EXPECT_EQ(KeepsPage(kept, block), needed) << "block " << block << " of " << computed;
        pages += needed;
      }
    }
    EXPECT_EQ(PagesHeld(recipe, computed), pages) << computed;
  }
}

TEST(Visibility, WindowCountsTheQuerysOwnPosition) {
  Recipe recipe;
  recipe.window = 1;
  recipe.layer_full = recipe.decode_full = {false};
  const kernels::KeySpan span = SpanOf(recipe, 0, Phase::kPrefill);
  EXPECT_EQ(VisibleKeys(span, 100), 1);
  EXPECT_EQ(AttendedKeys(recipe, 10, 0, 10), 10);
}

TEST(Visibility, LongSequencesDoNotOverflow) {
  Recipe recipe;
  recipe.layer_full = recipe.decode_full = std::vector<bool>(100);
  const int64_t n = 10'000'000;
  EXPECT_EQ(AttendedKeys(recipe, n, 0, n), 100 * (n * (n + 1) / 2));
  recipe.window = 0xffffffffu;
  recipe.sinks = 0xffffffffu;
  EXPECT_EQ(AttendedKeys(recipe, n, 0, n), 100 * (n * (n + 1) / 2));
}

}  // namespace
}  // namespace swaa
