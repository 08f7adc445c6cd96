// A recipe as a client writes it, {W, K, F, D, thinking, adapter}, and its attention resolved for a
// model, which is all that the engine reads of it. SWAA: arXiv 2512.10411.

#ifndef SWAA_ENGINE_RECIPE_RECIPE_H_
#define SWAA_ENGINE_RECIPE_RECIPE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace swaa {

// A set of decoder layers as a client writes it, before the model's layer count is known.
struct LayerSelection {
  enum class Kind { kEmpty, kAll, kIndices, kStride };
  Kind kind = Kind::kAll;         // kEmpty: a set that was sent without a selection; refused
  bool all = true;                // kAll; false is refused
  std::vector<uint32_t> indices;  // kIndices; not empty
  uint32_t first = 0;             // kStride: first, first + step, ... below the layer count
  uint32_t step = 1;

  static LayerSelection All() { return {}; }
  static LayerSelection Indices(std::vector<uint32_t> indices) {
    return {.kind = Kind::kIndices, .indices = std::move(indices)};
  }
  static LayerSelection Stride(uint32_t first, uint32_t step) {
    return {.kind = Kind::kStride, .first = first, .step = step};
  }
};

enum class ThinkingMode { kDefault, kEnabled, kDisabled };

// A recipe as a client writes it. Default: full attention.
struct RecipeSpec {
  std::optional<uint32_t> sliding_window_tokens;        // W, the query's own position included
  std::optional<uint32_t> sink_tokens;                  // K
  std::optional<LayerSelection> full_attention_layers;  // F
  std::optional<LayerSelection> full_attention_decode;  // D
  ThinkingMode thinking_mode = ThinkingMode::kDefault;
  std::string lora_name;  // empty: base model
};

// The attention of a recipe, checked against a model of layer_full.size() layers. Immutable value.
struct Recipe {
  std::optional<uint32_t>
      window;                     // W; absent: full attention everywhere, then all below is neutral
  uint32_t sinks = 0;             // K
  std::vector<bool> layer_full;   // [layers]: in F
  std::vector<bool> decode_full;  // [layers]: in D

  int32_t num_layers() const { return static_cast<int32_t>(layer_full.size()); }
  bool operator==(const Recipe&) const = default;
};

// Checks and resolves W, K, F and D. INVALID_ARGUMENT with field, value and way out for: K, F or D
// without W; W = 0; a layer >= num_layers; a stride of step 0 or that selects nothing; `all:
// false`; an empty selection. Messages name fields as the proto does, below `path` ("recipe" ->
// "recipe.sink_tokens").
absl::StatusOr<Recipe> ResolveRecipe(const RecipeSpec& spec, int32_t num_layers,
                                     const std::string& path = "recipe");

struct NamedRecipeSpec {
  std::string name;
  RecipeSpec spec;
  std::string description;
  bool built_in = false;  // left out, not refused, where it does not fit a model
};

// The built-in recipes: full, quality, balanced, fast, memory, decode, window.
const std::vector<NamedRecipeSpec>& BuiltInRecipes();

}  // namespace swaa

#endif  // SWAA_ENGINE_RECIPE_RECIPE_H_
