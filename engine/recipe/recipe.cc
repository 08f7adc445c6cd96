// Validation and resolution of recipes.

#include "engine/recipe/recipe.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace swaa {
namespace {

absl::Status Invalid(const std::string& field, const std::string& message) {
  return absl::InvalidArgumentError(absl::StrCat(field, ": ", message));
}

absl::StatusOr<std::vector<bool>> ResolveIndices(const std::vector<uint32_t>& indices,
                                                 int32_t num_layers, const std::string& field) {
  if (indices.empty()) {
    return Invalid(absl::StrCat(field, ".layers"),
                   "selects no layer; name at least one, or leave the field out");
  }
  if (indices.size() > static_cast<size_t>(num_layers)) {
    return Invalid(absl::StrCat(field, ".layers"),
                   absl::StrCat("names ", indices.size(), " layers; the model has ", num_layers,
                                ", name each once"));
  }
  std::vector<bool> layers(num_layers);
  for (uint32_t index : indices) {
    if (index >= static_cast<uint32_t>(num_layers)) {
      return Invalid(absl::StrCat(field, ".layers"),
                     absl::StrCat("layer ", index, " does not exist; the model has layers 0 to ",
                                  num_layers - 1));
    }
    layers[index] = true;
  }
  return layers;
}

absl::StatusOr<std::vector<bool>> ResolveStride(uint32_t first, uint32_t step, int32_t num_layers,
                                                const std::string& field) {
  if (step == 0) {
    return Invalid(absl::StrCat(field, ".stride.step"),
                   "0 never moves on; take 1 for every layer from the first, 2 for every other");
  }
  if (first >= static_cast<uint32_t>(num_layers)) {
    return Invalid(
        absl::StrCat(field, ".stride.first"),
        absl::StrCat(first, " selects no layer; the model has layers 0 to ", num_layers - 1));
  }
  std::vector<bool> layers(num_layers);
  for (uint64_t layer = first; layer < static_cast<uint64_t>(num_layers); layer += step) {
    layers[layer] = true;
  }
  return layers;
}

absl::StatusOr<std::vector<bool>> ResolveLayers(const std::optional<LayerSelection>& selection,
                                                int32_t num_layers, const std::string& field) {
  if (!selection.has_value()) return std::vector<bool>(num_layers);
  switch (selection->kind) {
    case LayerSelection::Kind::kAll:
      if (!selection->all) {
        return Invalid(absl::StrCat(field, ".all"),
                       "false selects no layer; leave the field out instead");
      }
      return std::vector<bool>(num_layers, true);
    case LayerSelection::Kind::kIndices:
      return ResolveIndices(selection->indices, num_layers, field);
    case LayerSelection::Kind::kStride:
      return ResolveStride(selection->first, selection->step, num_layers, field);
    case LayerSelection::Kind::kEmpty:
      break;
  }
  return Invalid(field, "selects nothing; set all, layers or stride, or leave the field out");
}

absl::Status NeedsWindow(const std::string& field, const std::string& value) {
  return Invalid(field,
                 absl::StrCat(value, " set without sliding_window_tokens; set a window or drop ",
                              "the field"));
}

}  // namespace

absl::StatusOr<Recipe> ResolveRecipe(const RecipeSpec& spec, int32_t num_layers,
                                     const std::string& path) {
  if (!spec.sliding_window_tokens.has_value()) {
    if (spec.sink_tokens.has_value()) {
      return NeedsWindow(absl::StrCat(path, ".sink_tokens"), absl::StrCat(*spec.sink_tokens));
    }
    if (spec.full_attention_layers.has_value()) {
      return NeedsWindow(absl::StrCat(path, ".full_attention_layers"), "layers");
    }
    if (spec.full_attention_decode.has_value()) {
      return NeedsWindow(absl::StrCat(path, ".full_attention_decode"), "layers");
    }
  } else if (*spec.sliding_window_tokens == 0) {
    return Invalid(
        absl::StrCat(path, ".sliding_window_tokens"),
        "0 would hide the query's own position; take at least 1, or leave it out for full "
        "attention");
  }
  Recipe recipe;
  recipe.window = spec.sliding_window_tokens;
  recipe.sinks = spec.sink_tokens.value_or(0);
  SWAA_ASSIGN_OR_RETURN(recipe.layer_full,
                        ResolveLayers(spec.full_attention_layers, num_layers,
                                      absl::StrCat(path, ".full_attention_layers")));
  SWAA_ASSIGN_OR_RETURN(recipe.decode_full,
                        ResolveLayers(spec.full_attention_decode, num_layers,
                                      absl::StrCat(path, ".full_attention_decode")));
  return recipe;
}

}  // namespace swaa
