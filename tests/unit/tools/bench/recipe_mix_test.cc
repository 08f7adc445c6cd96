// The mix of recipes: how it is written and dealt.

#include "tools/bench/recipe_mix.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace swaa::tools::bench {
namespace {

TEST(RecipeMixTest, ParsesNamesAndRecipesInFullWithWeights) {
  const auto arms = ParseRecipeMix(
      R"(full=1, balanced=2,{"sliding_window_tokens":512,"sink_tokens":16}=0.5,)"
      R"({"slidingWindowTokens":64,"fullAttentionLayers":{"stride":{"first":1,"step":2}},)"
      R"("fullAttentionDecode":{"all":true}},window)");
  ASSERT_TRUE(arms.ok()) << arms.status();
  ASSERT_EQ(arms->size(), 5u);
  std::vector<std::string> labels;
  std::vector<double> weights;
  for (const RecipeArm& arm : *arms) {
    labels.push_back(arm.label);
    weights.push_back(arm.weight);
  }
  EXPECT_THAT(labels,
              testing::ElementsAre("full", "balanced", "w512-k16", "w64-f1:2-dall", "window"));
  EXPECT_THAT(weights, testing::ElementsAre(1, 2, 0.5, 1, 1));
  EXPECT_TRUE((*arms)[0].IsFullAttention());
  EXPECT_FALSE((*arms)[1].IsFullAttention());
  EXPECT_FALSE((*arms)[2].IsFullAttention());

  v1::GenerateRequest request;
  (*arms)[1].SetOn(&request);
  EXPECT_EQ(request.recipe_name(), "balanced");
  (*arms)[2].SetOn(&request);
  EXPECT_EQ(request.recipe().sliding_window_tokens(), 512u);
  EXPECT_EQ(request.recipe().sink_tokens(), 16u);
  EXPECT_EQ(request.recipe_choice_case(), v1::GenerateRequest::kRecipe);
}

TEST(RecipeMixTest, AnEmptyRecipeInFullIsFullAttention) {
  const auto arms = ParseRecipeMix("{}=3,window");
  ASSERT_TRUE(arms.ok()) << arms.status();
  EXPECT_TRUE((*arms)[0].IsFullAttention());
  EXPECT_EQ((*arms)[0].weight, 3);
}

TEST(RecipeMixTest, LabelsTellLayerListsApart) {
  const auto arms = ParseRecipeMix(
      R"({"sliding_window_tokens":8,"full_attention_layers":{"layers":{"indices":[0,3]}}},)"
      R"({"sliding_window_tokens":8,"lora_name":"a=b,c"}=2)");
  ASSERT_TRUE(arms.ok()) << arms.status();
  EXPECT_EQ((*arms)[0].label, "w8-f0+3");
  EXPECT_EQ((*arms)[1].label, "w8-a=b,c");
  EXPECT_EQ((*arms)[1].weight, 2);
}

TEST(RecipeMixTest, RefusesWhatIsNoMix) {
  for (const char* text : {"", "full,", "=1", "full=0", "full=-1", "full=much", "full=", "full=inf",
                           "full,full=2", "{\"windows\":5}", "{\"sliding_window_tokens\":\"many\"}",
                           "{\"sink_tokens\":5=1", "{\"sink_tokens\":5}x=1=2"}) {
    const auto arms = ParseRecipeMix(text);
    EXPECT_EQ(arms.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(arms.status().message()), testing::HasSubstr("NAME=WEIGHT"));
  }
}

std::vector<size_t> Deal(const std::string& mix, uint64_t seed, int count) {
  RecipeDealer dealer(*ParseRecipeMix(mix), seed);
  std::vector<size_t> dealt(count);
  for (size_t& arm : dealt) arm = dealer.Next();
  return dealt;
}

TEST(RecipeMixTest, DealsEachArmItsShareAtAnyMoment) {
  const std::vector<double> weights = {1, 2.5, 0.5, 4};
  std::vector<double> dealt(4);
  double n = 0;
  for (size_t arm : Deal("a=1,b=2.5,c=0.5,d=4", 1, 4000)) {
    ++n;
    ++dealt[arm];
    for (size_t i = 0; i < dealt.size(); ++i) {
      ASSERT_LE(std::abs(dealt[i] - n * weights[i] / 8), 6) << "arm " << i << " of " << n;
    }
  }
  EXPECT_THAT(dealt, testing::ElementsAre(500, 1250, 250, 2000));
}

TEST(RecipeMixTest, DealsInNoFixedOrder) {
  const std::vector<size_t> dealt = Deal("a,b,c", 2, 3000);
  int follows = 0;
  for (size_t i = 0; i + 1 < dealt.size(); ++i) follows += dealt[i] == 0 && dealt[i + 1] == 1;
  // In a fixed order arm 1 would come right after arm 0 a thousand times or never.
  EXPECT_GT(follows, 300);
  EXPECT_LT(follows, 600);
  EXPECT_EQ(Deal("a,b,c", 2, 3000), dealt);
  EXPECT_NE(Deal("a,b,c", 3, 3000), dealt);
}

}  // namespace
}  // namespace swaa::tools::bench
