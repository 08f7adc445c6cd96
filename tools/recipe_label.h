// Tools: what a recipe is called that has no name.

#ifndef SWAA_TOOLS_RECIPE_LABEL_H_
#define SWAA_TOOLS_RECIPE_LABEL_H_

#include <string>

#include "swaa/v1/recipe.pb.h"

namespace swaa::tools {

// A recipe in full as a short label: w window, k sinks, f full layers, d full while decoding.
std::string RecipeLabel(const v1::Recipe& recipe);

}  // namespace swaa::tools

#endif  // SWAA_TOOLS_RECIPE_LABEL_H_
