// Recipes by name, and recipes between the wire and the engine.

#ifndef SWAA_SERVER_RECIPES_RECIPE_CATALOG_H_
#define SWAA_SERVER_RECIPES_RECIPE_CATALOG_H_

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/recipe/recipe.h"
#include "swaa/v1/generation.pb.h"
#include "swaa/v1/recipe.pb.h"

namespace swaa::server {

// What metrics and load call a recipe that a request gives in full.
inline constexpr char kCustomRecipeLabel[] = "custom";

struct NamedRecipe {
  std::string name;
  Recipe recipe;
  ThinkingMode thinking_mode = ThinkingMode::kDefault;
  std::string lora_name;  // empty: base model
  std::string description;
};

// The recipe of one request.
struct ChosenRecipe {
  Recipe recipe;
  ThinkingMode thinking_mode = ThinkingMode::kDefault;
  std::string lora_name;      // empty: base model
  std::string name;           // empty for a recipe given in full
  std::string label;          // name, or "custom"
  bool from_request = false;  // named by the request itself, not by a default
};

// A recipe as a client wrote it. INVALID_ARGUMENT for an enum value that this server does not know.
absl::StatusOr<RecipeSpec> RecipeSpecFromProto(const v1::Recipe& proto, const std::string& path);

// The resolved form that clients see: layer sets as indices, neutral fields absent.
v1::Recipe RecipeToProto(const NamedRecipe& named);
v1::Recipe RecipeToProto(const ChosenRecipe& chosen);

// The registered recipes of one model. Immutable; any thread.
class RecipeCatalog {
 public:
  // Resolves `specs` for the model. A built-in recipe that does not fit it (odd layers of a model
  // of one) is left out, unless it is the default. INVALID_ARGUMENT names the recipe at fault;
  // NOT_FOUND if `default_name` is none of them, or one names an adapter that is none of
  // `adapters`.
  static absl::StatusOr<RecipeCatalog> Create(const std::vector<NamedRecipeSpec>& specs,
                                              int32_t num_layers, bool supports_thinking,
                                              const std::string& default_name,
                                              const std::set<std::string>& adapters = {});

  const std::vector<NamedRecipe>& recipes() const { return recipes_; }
  const NamedRecipe& default_recipe() const { return recipes_[default_index_]; }
  const NamedRecipe* Find(const std::string& name) const;
  // "balanced, full, ..." for messages.
  std::string Names() const;

  // In full, else by name, else the default. Which adapters are loaded at the moment is not looked
  // at. NOT_FOUND for an unknown name, INVALID_ARGUMENT for a recipe that is wrong or a thinking
  // switch that the model or a raw input does not take. A default's thinking switch is dropped with
  // raw input. `instead`: what an experiment, or a name of the model, has in place of the default.
  absl::StatusOr<ChosenRecipe> Choose(const v1::GenerateRequest& request,
                                      const NamedRecipe* instead = nullptr) const;

 private:
  absl::StatusOr<ChosenRecipe> ChooseInFull(const v1::Recipe& proto) const;
  absl::StatusOr<ChosenRecipe> ChooseByName(const std::string& name) const;

  std::vector<NamedRecipe> recipes_;
  size_t default_index_ = 0;
  int32_t num_layers_ = 0;
  bool supports_thinking_ = false;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_RECIPES_RECIPE_CATALOG_H_
