// Tools: what a recipe is called that has no name.

#include "tools/recipe_label.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace swaa::tools {
namespace {

std::string LayersLabel(const v1::LayerSet& layers) {
  switch (layers.selection_case()) {
    case v1::LayerSet::kAll:
      return "all";
    case v1::LayerSet::kLayers:
      return absl::StrJoin(layers.layers().indices(), "+");
    case v1::LayerSet::kStride:
      return absl::StrCat(layers.stride().first(), ":", layers.stride().step());
    case v1::LayerSet::SELECTION_NOT_SET:
      break;
  }
  return "";
}

}  // namespace

std::string RecipeLabel(const v1::Recipe& recipe) {
  std::vector<std::string> parts;
  if (recipe.has_sliding_window_tokens()) {
    parts.push_back(absl::StrCat("w", recipe.sliding_window_tokens()));
  }
  if (recipe.has_sink_tokens()) parts.push_back(absl::StrCat("k", recipe.sink_tokens()));
  if (recipe.has_full_attention_layers()) {
    parts.push_back(absl::StrCat("f", LayersLabel(recipe.full_attention_layers())));
  }
  if (recipe.has_full_attention_decode()) {
    parts.push_back(absl::StrCat("d", LayersLabel(recipe.full_attention_decode())));
  }
  if (recipe.thinking_mode() != v1::THINKING_MODE_UNSPECIFIED) {
    parts.push_back(recipe.thinking_mode() == v1::THINKING_MODE_ENABLED ? "think" : "nothink");
  }
  if (!recipe.lora_name().empty()) parts.push_back(recipe.lora_name());
  return parts.empty() ? "{}" : absl::StrJoin(parts, "-");
}

}  // namespace swaa::tools
