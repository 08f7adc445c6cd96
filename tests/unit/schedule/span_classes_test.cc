// Classes of layers beside the recipes themselves, layer by layer.

#include "engine/schedule/span_classes.h"

#include <random>
#include <set>

#include <gtest/gtest.h>

#include "tests/unit/testing/random_recipe.h"
#include "tests/unit/testing/seed.h"

namespace swaa {
namespace {

constexpr int32_t kLayers = 9;

struct Sequence {
  Recipe recipe;
  int32_t number = 0;
  Phase phase = Phase::kPrefill;
};

// What the layers of a step must see, and that no two classes are alike.
void ExpectSpans(const std::vector<Sequence>& sequences, const Step& step) {
  std::set<std::vector<std::pair<int32_t, int32_t>>> distinct;
  ASSERT_EQ(step.layer_class.size(), static_cast<size_t>(kLayers));
  for (int32_t layer = 0; layer < kLayers; ++layer) {
    std::vector<std::pair<int32_t, int32_t>> column;
    for (size_t s = 0; s < sequences.size(); ++s) {
      const size_t index = step.layer_class[layer] * sequences.size() + s;
      ASSERT_LT(index, step.spans.size());
      const kernels::KeySpan expected = SpanOf(sequences[s].recipe, layer, sequences[s].phase);
      EXPECT_EQ(step.spans[index], expected) << "layer " << layer << " sequence " << s;
      column.emplace_back(expected.window, expected.sinks);
    }
    distinct.insert(column);
  }
  EXPECT_EQ(step.spans.size(), distinct.size() * sequences.size());
}

TEST(SpanClasses, EveryLayerSeesWhatItsRecipesSay) {
  const uint32_t seed = testing::Seed();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  SpanClasses classes(kLayers);
  std::vector<Sequence> running;
  for (int round = 0; round < 500; ++round) {
    // Numbers are given back and mean another recipe later.
    if (running.size() > 6 || (!running.empty() && random() % 3 == 0)) {
      const size_t index = random() % running.size();
      classes.Remove(running[index].number);
      running.erase(running.begin() + static_cast<int64_t>(index));
    } else {
      Sequence sequence{.recipe = testing::RandomRecipe(&random, kLayers)};
      if (!running.empty() && random() % 3 == 0) sequence.recipe = running.back().recipe;
      sequence.number = classes.Add(sequence.recipe);
      running.push_back(sequence);
    }
    if (running.empty()) continue;
    std::vector<SpanClasses::Column> columns;
    for (Sequence& sequence : running) {
      sequence.phase = random() % 2 == 0 ? Phase::kPrefill : Phase::kDecode;
      columns.push_back({sequence.number, sequence.phase});
    }
    Step step;
    classes.Fill(columns, &step);
    ASSERT_NO_FATAL_FAILURE(ExpectSpans(running, step));
  }
}

TEST(SpanClasses, BuiltInRecipesTogetherNeedFewClasses) {
  constexpr int32_t kMany = 36;
  SpanClasses classes(kMany);
  std::vector<SpanClasses::Column> columns;
  for (const NamedRecipeSpec& named : BuiltInRecipes()) {
    const int32_t number = classes.Add(*ResolveRecipe(named.spec, kMany));
    columns.push_back({number, Phase::kPrefill});
    columns.push_back({number, Phase::kDecode});
  }
  Step step;
  classes.Fill(columns, &step);
  EXPECT_EQ(step.spans.size(), 3 * columns.size()) << "even, every fourth from 1, other odd ones";
}

TEST(SpanClasses, CountsKeysAsTheRecipeDoes) {
  const uint32_t seed = testing::Seed();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 300; ++round) {
    SpanClasses classes(kLayers);
    const Recipe recipe = testing::RandomRecipe(&random, kLayers);
    const int32_t number = classes.Add(recipe);
    const auto first = static_cast<int64_t>(random() % 2000);
    const auto last = first + static_cast<int64_t>(random() % 500);
    EXPECT_EQ(classes.AttendedKeys(number, Phase::kPrefill, first, last),
              AttendedKeys(recipe, last, first, last));
    EXPECT_EQ(classes.AttendedKeys(number, Phase::kDecode, first, last),
              AttendedKeys(recipe, first, first, last));
  }
}

}  // namespace
}  // namespace swaa
