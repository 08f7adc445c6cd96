// Recipes at and around the edges of pages and tiles.

#ifndef SWAA_TESTS_UNIT_TESTING_RANDOM_RECIPE_H_
#define SWAA_TESTS_UNIT_TESTING_RANDOM_RECIPE_H_

#include <cstdint>
#include <iterator>
#include <random>

#include "engine/recipe/recipe.h"

namespace swaa::testing {

// One in six is full attention; the others mix windows, sinks and layer sets of every kind.
inline Recipe RandomRecipe(std::mt19937* random, int32_t num_layers) {
  auto below = [&](uint32_t n) { return static_cast<uint32_t>((*random)() % n); };
  constexpr uint32_t kEdges[] = {1,  2,   15,  16,  17,  31,  63,  64,
                                 65, 100, 127, 128, 129, 200, 500, 1000};
  Recipe recipe;
  recipe.layer_full.resize(num_layers);
  recipe.decode_full.resize(num_layers);
  if (below(6) == 0) return recipe;
  recipe.window = kEdges[below(std::size(kEdges))];
  recipe.sinks = below(2) == 0 ? 0 : kEdges[below(std::size(kEdges))];
  for (int32_t layer = 0; layer < num_layers; ++layer) {
    recipe.layer_full[layer] = below(3) == 0;
    recipe.decode_full[layer] = below(3) == 0;
  }
  return recipe;
}

}  // namespace swaa::testing

#endif  // SWAA_TESTS_UNIT_TESTING_RANDOM_RECIPE_H_
