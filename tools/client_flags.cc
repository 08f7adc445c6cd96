// Tools: the flags that every client has.

#include <cstdint>
#include <optional>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "base/status_macros.h"
#include "tools/client.h"

ABSL_FLAG(std::string, address, "127.0.0.1:50051", "HOST:PORT of the server");
ABSL_FLAG(std::string, recipe, "",
          "a named recipe, as the server lists them; empty: the server's default");
ABSL_FLAG(absl::optional<uint32_t>, window, absl::nullopt,
          "a recipe in full: keys in the sliding window");
ABSL_FLAG(absl::optional<uint32_t>, sinks, absl::nullopt,
          "with --window: first tokens that stay visible");
ABSL_FLAG(std::string, full_layers, "",
          "with --window: layers that never slide: odd, even, all, 1,3,5 or first:step");
ABSL_FLAG(std::string, full_decode, "",
          "with --window: layers that see everything while decoding, written alike");
ABSL_FLAG(absl::optional<uint32_t>, max_tokens, absl::nullopt,
          "most tokens to generate; absent: up to the model's context");
ABSL_FLAG(absl::optional<float>, temperature, absl::nullopt,
          "0 is greedy; absent: the model's own default");
ABSL_FLAG(absl::optional<uint64_t>, seed, absl::nullopt,
          "the same seed and request give the same tokens");

namespace swaa::tools {
namespace {

absl::StatusOr<v1::LayerSet> LayersFlag(const std::string& name, const std::string& value) {
  absl::StatusOr<v1::LayerSet> layers = ParseLayers(value);
  if (layers.ok()) return layers;
  return absl::InvalidArgumentError(
      absl::StrCat("--", name, ": ", std::string(layers.status().message())));
}

}  // namespace

std::vector<std::string> ClientFlagNames() {
  return {"address",     "recipe",     "window",      "sinks", "full_layers",
          "full_decode", "max_tokens", "temperature", "seed"};
}

std::string AddressFlag() { return absl::GetFlag(FLAGS_address); }

absl::StatusOr<v1::GenerateRequest> RequestFromFlags() {
  v1::GenerateRequest request;
  v1::Recipe recipe;
  const std::string full_layers = absl::GetFlag(FLAGS_full_layers);
  const std::string full_decode = absl::GetFlag(FLAGS_full_decode);
  if (auto window = absl::GetFlag(FLAGS_window)) recipe.set_sliding_window_tokens(*window);
  if (auto sinks = absl::GetFlag(FLAGS_sinks)) recipe.set_sink_tokens(*sinks);
  if (!full_layers.empty()) {
    SWAA_ASSIGN_OR_RETURN(*recipe.mutable_full_attention_layers(),
                          LayersFlag("full-layers", full_layers));
  }
  if (!full_decode.empty()) {
    SWAA_ASSIGN_OR_RETURN(*recipe.mutable_full_attention_decode(),
                          LayersFlag("full-decode", full_decode));
  }
  const std::string name = absl::GetFlag(FLAGS_recipe);
  const bool in_full = recipe.ByteSizeLong() > 0;
  if (in_full && !name.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--recipe: ", name, " and a recipe in full (--window, --sinks, ...) exclude each other"));
  }
  if (in_full) *request.mutable_recipe() = recipe;
  if (!name.empty()) request.set_recipe_name(name);
  if (auto max_tokens = absl::GetFlag(FLAGS_max_tokens)) {
    request.mutable_stopping_options()->set_max_tokens(*max_tokens);
  }
  if (auto temperature = absl::GetFlag(FLAGS_temperature)) {
    request.mutable_sampling_params()->set_temperature(*temperature);
  }
  if (auto seed = absl::GetFlag(FLAGS_seed)) request.mutable_sampling_params()->set_seed(*seed);
  return request;
}

}  // namespace swaa::tools
