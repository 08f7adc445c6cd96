// Recipes: what is refused, how, and what the others resolve to.

#include "engine/recipe/recipe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace swaa {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int32_t kLayers = 30;

RecipeSpec Window(uint32_t window) {
  RecipeSpec spec;
  spec.sliding_window_tokens = window;
  return spec;
}

TEST(ResolveRecipe, EmptyIsFullAttention) {
  const absl::StatusOr<Recipe> recipe = ResolveRecipe({}, kLayers);
  ASSERT_TRUE(recipe.ok());
  EXPECT_FALSE(recipe->window.has_value());
  EXPECT_EQ(recipe->num_layers(), kLayers);
}

TEST(ResolveRecipe, SelectsLayers) {
  RecipeSpec spec = Window(7);
  spec.sink_tokens = 3;
  spec.full_attention_layers = LayerSelection::Stride(1, 2);
  spec.full_attention_decode = LayerSelection::Indices({0, 29, 0});
  const absl::StatusOr<Recipe> recipe = ResolveRecipe(spec, kLayers);
  ASSERT_TRUE(recipe.ok()) << recipe.status();
  EXPECT_EQ(recipe->window, 7u);
  EXPECT_EQ(recipe->sinks, 3u);
  for (int32_t layer = 0; layer < kLayers; ++layer) {
    EXPECT_EQ(recipe->layer_full[layer], layer % 2 == 1) << layer;
    EXPECT_EQ(recipe->decode_full[layer], layer == 0 || layer == 29) << layer;
  }
}

struct Refusal {
  const char* name;
  RecipeSpec spec;
  const char* field;
  const char* value;
};

std::vector<Refusal> Refusals() {
  std::vector<Refusal> refusals;
  auto add = [&](const char* name, RecipeSpec spec, const char* field, const char* value) {
    refusals.push_back({name, std::move(spec), field, value});
  };
  RecipeSpec spec;
  spec.sink_tokens = 128;
  add("SinksWithoutWindow", spec, "recipe.sink_tokens", "128");
  spec = {};
  spec.full_attention_layers = LayerSelection::All();
  add("LayersWithoutWindow", spec, "recipe.full_attention_layers", "sliding_window_tokens");
  spec = {};
  spec.full_attention_decode = LayerSelection::All();
  add("DecodeWithoutWindow", spec, "recipe.full_attention_decode", "sliding_window_tokens");
  add("NoWindow", Window(0), "recipe.sliding_window_tokens", "0");
  spec = Window(1);
  spec.full_attention_layers = LayerSelection::Indices({kLayers});
  add("LayerTooHigh", spec, "recipe.full_attention_layers", "layer 30");
  spec = Window(1);
  spec.full_attention_decode = LayerSelection::Indices({});
  add("NoLayers", spec, "recipe.full_attention_decode", "selects no layer");
  spec = Window(1);
  spec.full_attention_layers = LayerSelection::Stride(0, 0);
  add("StepZero", spec, "recipe.full_attention_layers.stride.step", "0");
  spec = Window(1);
  spec.full_attention_layers = LayerSelection::Stride(kLayers, 1);
  add("StrideBeyond", spec, "recipe.full_attention_layers.stride.first", "30");
  spec = Window(1);
  spec.full_attention_layers = LayerSelection{.kind = LayerSelection::Kind::kAll, .all = false};
  add("AllFalse", spec, "recipe.full_attention_layers.all", "false");
  spec = Window(1);
  spec.full_attention_decode = LayerSelection{.kind = LayerSelection::Kind::kEmpty};
  add("EmptySelection", spec, "recipe.full_attention_decode", "selects nothing");
  return refusals;
}

class ResolveRecipeRefuses : public ::testing::TestWithParam<Refusal> {};

TEST_P(ResolveRecipeRefuses, NamingFieldAndValue) {
  const absl::StatusOr<Recipe> recipe = ResolveRecipe(GetParam().spec, kLayers);
  ASSERT_EQ(recipe.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(recipe.status().message()),
              AllOf(HasSubstr(GetParam().field), HasSubstr(GetParam().value)));
}

INSTANTIATE_TEST_SUITE_P(Table, ResolveRecipeRefuses, ::testing::ValuesIn(Refusals()),
                         [](const auto& info) { return info.param.name; });

TEST(ResolveRecipe, HugeNumbersAreNoOverflow) {
  RecipeSpec spec = Window(0xffffffffu);
  spec.sink_tokens = 0xffffffffu;
  spec.full_attention_layers = LayerSelection::Stride(1, 0xffffffffu);
  const absl::StatusOr<Recipe> recipe = ResolveRecipe(spec, kLayers);
  ASSERT_TRUE(recipe.ok());
  EXPECT_TRUE(recipe->layer_full[1]);
  EXPECT_FALSE(recipe->layer_full[0]);
}

TEST(BuiltInRecipes, AllResolve) {
  for (const NamedRecipeSpec& named : BuiltInRecipes()) {
    EXPECT_TRUE(ResolveRecipe(named.spec, kLayers).ok()) << named.name;
  }
  EXPECT_EQ(BuiltInRecipes().size(), 7u);
  EXPECT_EQ(BuiltInRecipes().front().name, "full");
}

}  // namespace
}  // namespace swaa
