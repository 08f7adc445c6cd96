// The built-in recipes, by the names of the SWAA paper's trade-offs.

#include "engine/recipe/recipe.h"

namespace swaa {
namespace {

RecipeSpec Windowed(uint32_t window, std::optional<uint32_t> sinks,
                    std::optional<LayerSelection> full_layers,
                    std::optional<LayerSelection> full_decode) {
  RecipeSpec spec;
  spec.sliding_window_tokens = window;
  spec.sink_tokens = sinks;
  spec.full_attention_layers = std::move(full_layers);
  spec.full_attention_decode = std::move(full_decode);
  return spec;
}

}  // namespace

const std::vector<NamedRecipeSpec>& BuiltInRecipes() {
  static const auto* const kRecipes = [] {
    const LayerSelection all = LayerSelection::All();
    const LayerSelection odd = LayerSelection::Stride(1, 2);
    const LayerSelection every_fourth = LayerSelection::Stride(1, 4);
    auto* recipes = new std::vector<NamedRecipeSpec>{
        {"full", RecipeSpec{}, "Full attention: the reference."},
        {"quality", Windowed(4096, 100, odd, all),
         "Half the layers slide over 4096 tokens; full attention while decoding."},
        {"balanced", Windowed(2048, 100, odd, all),
         "Half the layers slide over 2048 tokens; full attention while decoding."},
        {"fast", Windowed(2048, 10, every_fourth, all),
         "Three quarters of the layers slide over 2048 tokens; full attention while decoding."},
        {"memory", Windowed(2048, 10, odd, std::nullopt),
         "Half the layers slide over 2048 tokens, while decoding too: their pages go back."},
        {"decode", Windowed(2048, 100, std::nullopt, all),
         "Every layer slides over 2048 tokens of the prompt; full attention while decoding."},
        {"window", Windowed(2048, std::nullopt, std::nullopt, std::nullopt),
         "The window alone, as a baseline."},
    };
    for (NamedRecipeSpec& recipe : *recipes) recipe.built_in = true;
    return recipes;
  }();
  return *kRecipes;
}

}  // namespace swaa
