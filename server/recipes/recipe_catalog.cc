// Recipes by name, and recipes between the wire and the engine.

#include "server/recipes/recipe_catalog.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "server/generate/errors.h"

namespace swaa::server {
namespace {

LayerSelection LayersFromProto(const v1::LayerSet& proto) {
  switch (proto.selection_case()) {
    case v1::LayerSet::kAll: {
      LayerSelection selection = LayerSelection::All();
      selection.all = proto.all();
      return selection;
    }
    case v1::LayerSet::kLayers:
      return LayerSelection::Indices(
          {proto.layers().indices().begin(), proto.layers().indices().end()});
    case v1::LayerSet::kStride:
      return LayerSelection::Stride(proto.stride().first(), proto.stride().step());
    case v1::LayerSet::SELECTION_NOT_SET:
      break;
  }
  LayerSelection nothing;
  nothing.kind = LayerSelection::Kind::kEmpty;
  return nothing;
}

// Adds the layers that are set; whether there were any.
bool AddIndices(const std::vector<bool>& layers, v1::LayerSet* proto) {
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    if (layers[layer]) proto->mutable_layers()->add_indices(static_cast<uint32_t>(layer));
  }
  return proto->has_layers();
}

absl::Status CheckAdapter(const std::string& lora_name, const std::string& path,
                          const std::set<std::string>& adapters) {
  if (lora_name.empty() || adapters.contains(lora_name)) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kNotFound, "lora_not_found",
      absl::StrCat(path, ".lora_name: no adapter ", Quoted(lora_name), " is loaded; loaded: ",
                   adapters.empty() ? "none" : absl::StrJoin(adapters, ", "),
                   "; name it in lora.adapters, or leave this empty for the base "
                   "model"));
}

std::string ThinkingName(ThinkingMode mode) {
  return mode == ThinkingMode::kEnabled ? "THINKING_MODE_ENABLED" : "THINKING_MODE_DISABLED";
}

absl::Status RefuseThinking(const std::string& path, ThinkingMode mode, const std::string& why) {
  return MakeError(absl::StatusCode::kInvalidArgument, "thinking_mode_not_supported",
                   absl::StrCat(path, ".thinking_mode: ", ThinkingName(mode), " ", why));
}

constexpr char kModelHasNoSwitch[] =
    "set, but the served model's chat template has no thinking switch; leave it unspecified";

v1::Recipe ToProto(const Recipe& recipe, ThinkingMode thinking, const std::string& lora_name) {
  v1::Recipe proto;
  if (recipe.window.has_value()) {
    proto.set_sliding_window_tokens(*recipe.window);
    if (recipe.sinks > 0) proto.set_sink_tokens(recipe.sinks);
    v1::LayerSet layers;
    if (AddIndices(recipe.layer_full, &layers)) *proto.mutable_full_attention_layers() = layers;
    v1::LayerSet decode;
    if (AddIndices(recipe.decode_full, &decode)) *proto.mutable_full_attention_decode() = decode;
  }
  if (thinking == ThinkingMode::kEnabled) {
    proto.set_thinking_mode(v1::THINKING_MODE_ENABLED);
  } else if (thinking == ThinkingMode::kDisabled) {
    proto.set_thinking_mode(v1::THINKING_MODE_DISABLED);
  }
  proto.set_lora_name(lora_name);
  return proto;
}

ChosenRecipe Chosen(const NamedRecipe& named, bool from_request) {
  return {.recipe = named.recipe,
          .thinking_mode = named.thinking_mode,
          .lora_name = named.lora_name,
          .name = named.name,
          .label = named.name,
          .from_request = from_request};
}

}  // namespace

absl::StatusOr<RecipeSpec> RecipeSpecFromProto(const v1::Recipe& proto, const std::string& path) {
  RecipeSpec spec;
  if (proto.has_sliding_window_tokens()) spec.sliding_window_tokens = proto.sliding_window_tokens();
  if (proto.has_sink_tokens()) spec.sink_tokens = proto.sink_tokens();
  if (proto.has_full_attention_layers()) {
    spec.full_attention_layers = LayersFromProto(proto.full_attention_layers());
  }
  if (proto.has_full_attention_decode()) {
    spec.full_attention_decode = LayersFromProto(proto.full_attention_decode());
  }
  switch (proto.thinking_mode()) {
    case v1::THINKING_MODE_UNSPECIFIED:
      spec.thinking_mode = ThinkingMode::kDefault;
      break;
    case v1::THINKING_MODE_ENABLED:
      spec.thinking_mode = ThinkingMode::kEnabled;
      break;
    case v1::THINKING_MODE_DISABLED:
      spec.thinking_mode = ThinkingMode::kDisabled;
      break;
    default:
      return MakeError(
          absl::StatusCode::kInvalidArgument, "unknown_enum_value",
          absl::StrCat(path, ".thinking_mode: ", static_cast<int>(proto.thinking_mode()),
                       " is no value of ThinkingMode; take 0 (unspecified), 1 (enabled) "
                       "or 2 (disabled)"));
  }
  spec.lora_name = proto.lora_name();
  return spec;
}

v1::Recipe RecipeToProto(const NamedRecipe& named) {
  return ToProto(named.recipe, named.thinking_mode, named.lora_name);
}

v1::Recipe RecipeToProto(const ChosenRecipe& chosen) {
  return ToProto(chosen.recipe, chosen.thinking_mode, chosen.lora_name);
}

absl::StatusOr<RecipeCatalog> RecipeCatalog::Create(const std::vector<NamedRecipeSpec>& specs,
                                                    int32_t num_layers, bool supports_thinking,
                                                    const std::string& default_name,
                                                    const std::set<std::string>& adapters) {
  RecipeCatalog catalog;
  catalog.num_layers_ = num_layers;
  catalog.supports_thinking_ = supports_thinking;
  for (const NamedRecipeSpec& named : specs) {
    const std::string path = absl::StrCat("recipes[", named.name, "]");
    SWAA_RETURN_IF_ERROR(CheckAdapter(named.spec.lora_name, path, adapters));
    if (named.spec.thinking_mode != ThinkingMode::kDefault && !supports_thinking) {
      return RefuseThinking(path, named.spec.thinking_mode, kModelHasNoSwitch);
    }
    absl::StatusOr<Recipe> recipe = ResolveRecipe(named.spec, num_layers, path);
    if (!recipe.ok() && named.built_in && named.name != default_name) continue;
    if (!recipe.ok()) return recipe.status();
    catalog.recipes_.push_back({named.name, *std::move(recipe), named.spec.thinking_mode,
                                named.spec.lora_name, named.description});
  }
  const NamedRecipe* chosen = catalog.Find(default_name);
  if (chosen == nullptr) {
    return absl::NotFoundError(absl::StrCat("default recipe: there is no recipe ",
                                            Quoted(default_name), "; there are ", catalog.Names()));
  }
  catalog.default_index_ = static_cast<size_t>(chosen - catalog.recipes_.data());
  return catalog;
}

const NamedRecipe* RecipeCatalog::Find(const std::string& name) const {
  auto found = std::find_if(recipes_.begin(), recipes_.end(),
                            [&](const NamedRecipe& named) { return named.name == name; });
  return found == recipes_.end() ? nullptr : &*found;
}

std::string RecipeCatalog::Names() const {
  return absl::StrJoin(recipes_, ", ", [](std::string* out, const NamedRecipe& named) {
    absl::StrAppend(out, named.name);
  });
}

absl::StatusOr<ChosenRecipe> RecipeCatalog::ChooseInFull(const v1::Recipe& proto) const {
  SWAA_ASSIGN_OR_RETURN(RecipeSpec spec, RecipeSpecFromProto(proto, "recipe"));
  absl::StatusOr<Recipe> recipe = ResolveRecipe(spec, num_layers_, "recipe");
  if (!recipe.ok()) return WithReason(recipe.status(), "invalid_recipe");
  return ChosenRecipe{.recipe = *std::move(recipe),
                      .thinking_mode = spec.thinking_mode,
                      .lora_name = std::move(spec.lora_name),
                      .label = kCustomRecipeLabel,
                      .from_request = true};
}

absl::StatusOr<ChosenRecipe> RecipeCatalog::ChooseByName(const std::string& name) const {
  const NamedRecipe* named = Find(name);
  if (named == nullptr) {
    return MakeError(
        absl::StatusCode::kNotFound, "recipe_not_found",
        absl::StrCat("recipe_name: there is no recipe ", Quoted(name), "; there are ", Names()));
  }
  return Chosen(*named, /*from_request=*/true);
}

absl::StatusOr<ChosenRecipe> RecipeCatalog::Choose(const v1::GenerateRequest& request,
                                                   const NamedRecipe* instead) const {
  ChosenRecipe chosen;
  switch (request.recipe_choice_case()) {
    case v1::GenerateRequest::kRecipe: {
      SWAA_ASSIGN_OR_RETURN(chosen, ChooseInFull(request.recipe()));
      break;
    }
    case v1::GenerateRequest::kRecipeName: {
      SWAA_ASSIGN_OR_RETURN(chosen, ChooseByName(request.recipe_name()));
      break;
    }
    case v1::GenerateRequest::RECIPE_CHOICE_NOT_SET: {
      chosen = Chosen(instead == nullptr ? default_recipe() : *instead,
                      /*from_request=*/false);
      break;
    }
  }
  const ThinkingMode thinking = chosen.thinking_mode;
  if (thinking == ThinkingMode::kDefault) return chosen;
  if (!supports_thinking_) return RefuseThinking("recipe", thinking, kModelHasNoSwitch);
  if (request.has_chat()) return chosen;
  if (chosen.from_request) {
    return RefuseThinking("recipe", thinking,
                          "needs chat input; send chat, or leave it unspecified");
  }
  chosen.thinking_mode = ThinkingMode::kDefault;
  return chosen;
}

}  // namespace swaa::server
