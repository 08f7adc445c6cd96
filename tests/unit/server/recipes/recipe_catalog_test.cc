// Which recipe a request gets, and what happens to its thinking switch.

#include "server/recipes/recipe_catalog.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include "server/generate/errors.h"

namespace swaa::server {
namespace {

using ::google::protobuf::util::MessageDifferencer;
using ::testing::HasSubstr;

constexpr int32_t kLayers = 6;

std::vector<NamedRecipeSpec> WithThinking() {
  std::vector<NamedRecipeSpec> specs = BuiltInRecipes();
  NamedRecipeSpec thoughtful{.name = "thoughtful"};
  thoughtful.spec.thinking_mode = ThinkingMode::kEnabled;
  specs.push_back(thoughtful);
  return specs;
}

RecipeCatalog Thinking(const std::string& default_name) {
  return *RecipeCatalog::Create(WithThinking(), kLayers, /*supports_thinking=*/true, default_name);
}

v1::GenerateRequest Raw() {
  v1::GenerateRequest request;
  request.set_prompt("x");
  return request;
}

TEST(RecipeCatalogTest, BuiltInRecipesThatDoNotFitAreLeftOut) {
  const auto one_layer = RecipeCatalog::Create(BuiltInRecipes(), 1, false, "full");
  ASSERT_TRUE(one_layer.ok()) << one_layer.status();
  EXPECT_EQ(one_layer->Names(), "full, decode, window");
  // Not in silence where it was asked for, by its name or by a recipe of one's own.
  const absl::Status asked = RecipeCatalog::Create(BuiltInRecipes(), 1, false, "fast").status();
  EXPECT_TRUE(absl::IsInvalidArgument(asked));
  EXPECT_THAT(std::string(asked.message()), HasSubstr("recipes[fast].full_attention_layers"));
  std::vector<NamedRecipeSpec> specs = BuiltInRecipes();
  specs.push_back({"mine", specs[1].spec, ""});
  EXPECT_THAT(std::string(RecipeCatalog::Create(specs, 1, false, "full").status().message()),
              HasSubstr("recipes[mine]"));
}

TEST(RecipeCatalogTest, InFullBeforeNameBeforeDefault) {
  const RecipeCatalog catalog = Thinking("balanced");
  EXPECT_EQ(catalog.Choose(Raw())->name, "balanced");
  EXPECT_FALSE(catalog.Choose(Raw())->from_request);
  v1::GenerateRequest request = Raw();
  request.set_recipe_name("window");
  EXPECT_EQ(catalog.Choose(request)->label, "window");
  request.mutable_recipe()->set_sliding_window_tokens(9);
  const ChosenRecipe chosen = *catalog.Choose(request);
  EXPECT_EQ(chosen.name, "");
  EXPECT_EQ(chosen.label, "custom");
  EXPECT_EQ(chosen.recipe.window, 9u);
}

TEST(RecipeCatalogTest, ThinkingOfARequestNeedsChatAndThatOfADefaultIsDropped) {
  v1::GenerateRequest chat;
  chat.mutable_chat()->add_messages()->set_content("x");
  const RecipeCatalog catalog = Thinking("thoughtful");
  EXPECT_EQ(catalog.Choose(Raw())->thinking_mode, ThinkingMode::kDefault);
  EXPECT_EQ(catalog.Choose(chat)->thinking_mode, ThinkingMode::kEnabled);
  v1::GenerateRequest named = Raw();
  named.set_recipe_name("thoughtful");
  v1::GenerateRequest in_full = Raw();
  in_full.mutable_recipe()->set_thinking_mode(v1::THINKING_MODE_DISABLED);
  for (const v1::GenerateRequest& request : {named, in_full}) {
    const absl::Status status = catalog.Choose(request).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("thinking_mode"));
    EXPECT_THAT(std::string(status.message()), HasSubstr("chat"));
    EXPECT_EQ(ErrorReason(status), "thinking_mode_not_supported");
  }
  *in_full.mutable_chat() = chat.chat();
  EXPECT_EQ(catalog.Choose(in_full)->thinking_mode, ThinkingMode::kDisabled);
}

TEST(RecipeCatalogTest, ModelWithoutTheSwitchRefusesItAtLoadAndInRequests) {
  const absl::Status at_load =
      RecipeCatalog::Create(WithThinking(), kLayers, false, "full").status();
  EXPECT_EQ(at_load.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(at_load.message()), HasSubstr("recipes[thoughtful].thinking_mode"));
  const RecipeCatalog catalog = *RecipeCatalog::Create(BuiltInRecipes(), kLayers, false, "full");
  v1::GenerateRequest request;
  request.mutable_chat()->add_messages()->set_content("x");
  request.mutable_recipe()->set_thinking_mode(v1::THINKING_MODE_ENABLED);
  EXPECT_EQ(catalog.Choose(request).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(RecipeCatalogTest, UnknownDefaultNamesWhatThereIs) {
  const absl::Status status =
      RecipeCatalog::Create(BuiltInRecipes(), kLayers, false, "nope").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("balanced"));
}

TEST(RecipeCatalogTest, ResolvedRecipesResolveToThemselves) {
  const RecipeCatalog catalog = Thinking("full");
  for (const NamedRecipe& named : catalog.recipes()) {
    const v1::Recipe proto = RecipeToProto(named);
    const RecipeSpec spec = *RecipeSpecFromProto(proto, "recipe");
    EXPECT_EQ(*ResolveRecipe(spec, kLayers, "recipe"), named.recipe) << named.name;
    EXPECT_EQ(spec.thinking_mode, named.thinking_mode) << named.name;
    EXPECT_EQ(spec.lora_name, named.lora_name) << named.name;
    v1::GenerateRequest request;
    request.mutable_chat()->add_messages()->set_content("x");
    request.set_recipe_name(named.name);
    EXPECT_TRUE(MessageDifferencer::Equals(RecipeToProto(*catalog.Choose(request)), proto))
        << named.name;
  }
}

}  // namespace
}  // namespace swaa::server
