// Tools: the flags that every client has.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "base/status_macros.h"
#include "tools/client.h"

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
ABSL_FLAG(absl::optional<bool>, thinking, absl::nullopt,
          "a recipe in full: whether a chat's model is to think before it answers; absent: as its "
          "template has it");
ABSL_FLAG(uint32_t, max_tokens, 256, "most tokens to generate; 0: up to the model's context");
ABSL_FLAG(absl::optional<uint32_t>, min_tokens, absl::nullopt, "no end before so many tokens");
ABSL_FLAG(std::vector<std::string>, stop, {}, "texts that end the generation, commas between");
ABSL_FLAG(std::vector<std::string>, stop_token_ids, {},
          "token ids that end the generation, commas between");
ABSL_FLAG(bool, ignore_eos, false, "go on after the model's own end token");
ABSL_FLAG(bool, include_stop, false, "show the stop that ended the generation");
ABSL_FLAG(absl::optional<float>, top_p, absl::nullopt,
          "draw from the likeliest tokens with this share of the probability");
ABSL_FLAG(absl::optional<uint32_t>, top_k, absl::nullopt,
          "draw from so many likeliest tokens; 0: from all");
ABSL_FLAG(absl::optional<float>, min_p, absl::nullopt,
          "draw from tokens at least this many times as likely as the likeliest");
ABSL_FLAG(absl::optional<float>, frequency_penalty, absl::nullopt,
          "taken from a token's logit for each time it was generated");
ABSL_FLAG(absl::optional<float>, presence_penalty, absl::nullopt,
          "taken from a token's logit once it was generated");
ABSL_FLAG(absl::optional<float>, repetition_penalty, absl::nullopt,
          "divides the logits of tokens that were seen; 1: none");
ABSL_FLAG(std::vector<std::string>, logit_bias, {},
          "added to tokens' logits: ID:BIAS, commas between");
ABSL_FLAG(absl::optional<int32_t>, priority, absl::nullopt, "higher is served earlier");
ABSL_FLAG(std::string, cache_salt, "", "separates the prefix cache from other salts'");
ABSL_FLAG(std::string, request_id, "", "the request's id, for abort; empty: the server makes one");
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

absl::Status TakeStopping(v1::StoppingOptions* stopping) {
  if (const uint32_t most = absl::GetFlag(FLAGS_max_tokens); most > 0) {
    stopping->set_max_tokens(most);
  }
  if (auto least = absl::GetFlag(FLAGS_min_tokens)) stopping->set_min_tokens(*least);
  for (const std::string& text : absl::GetFlag(FLAGS_stop)) stopping->add_stop_strings(text);
  for (const std::string& text : absl::GetFlag(FLAGS_stop_token_ids)) {
    uint32_t id = 0;
    if (!absl::SimpleAtoi(text, &id)) {
      return absl::InvalidArgumentError(
          absl::StrCat("--stop-token-ids: \"", text, "\" is no token id; write 2,151645"));
    }
    stopping->add_stop_token_ids(id);
  }
  stopping->set_ignore_eos(absl::GetFlag(FLAGS_ignore_eos));
  stopping->set_include_stop_in_output(absl::GetFlag(FLAGS_include_stop));
  return absl::OkStatus();
}

absl::Status TakeSampling(v1::SamplingParams* sampling) {
  if (auto v = absl::GetFlag(FLAGS_temperature)) sampling->set_temperature(*v);
  if (auto v = absl::GetFlag(FLAGS_top_p)) sampling->set_top_p(*v);
  if (auto v = absl::GetFlag(FLAGS_top_k)) sampling->set_top_k(*v);
  if (auto v = absl::GetFlag(FLAGS_min_p)) sampling->set_min_p(*v);
  if (auto v = absl::GetFlag(FLAGS_frequency_penalty)) sampling->set_frequency_penalty(*v);
  if (auto v = absl::GetFlag(FLAGS_presence_penalty)) sampling->set_presence_penalty(*v);
  if (auto v = absl::GetFlag(FLAGS_repetition_penalty)) sampling->set_repetition_penalty(*v);
  if (auto v = absl::GetFlag(FLAGS_seed)) sampling->set_seed(*v);
  for (const std::string& text : absl::GetFlag(FLAGS_logit_bias)) {
    const size_t colon = text.find(':');
    uint32_t id = 0;
    float bias = 0;
    if (colon == std::string::npos || !absl::SimpleAtoi(text.substr(0, colon), &id) ||
        !absl::SimpleAtof(text.substr(colon + 1), &bias)) {
      return absl::InvalidArgumentError(
          absl::StrCat("--logit-bias: \"", text, "\" is no ID:BIAS; write 11:-100,42:2.5"));
    }
    (*sampling->mutable_logit_bias())[id] = bias;
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<std::string> ClientFlagNames() {
  std::vector<std::string> names = ConnectionFlagNames();
  names.insert(names.end(), {"recipe",
                             "window",
                             "sinks",
                             "full_layers",
                             "full_decode",
                             "thinking",
                             "max_tokens",
                             "min_tokens",
                             "stop",
                             "stop_token_ids",
                             "ignore_eos",
                             "include_stop",
                             "temperature",
                             "top_p",
                             "top_k",
                             "min_p",
                             "frequency_penalty",
                             "presence_penalty",
                             "repetition_penalty",
                             "logit_bias",
                             "seed",
                             "priority",
                             "cache_salt",
                             "request_id"});
  return names;
}

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
  if (auto thinking = absl::GetFlag(FLAGS_thinking)) {
    recipe.set_thinking_mode(*thinking ? v1::THINKING_MODE_ENABLED : v1::THINKING_MODE_DISABLED);
  }
  const std::string name = absl::GetFlag(FLAGS_recipe);
  const bool in_full = recipe.ByteSizeLong() > 0;
  if (in_full && !name.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--recipe: ", name, " and a recipe in full (--window, --sinks, ...) exclude each other"));
  }
  if (in_full) *request.mutable_recipe() = recipe;
  if (!name.empty()) request.set_recipe_name(name);
  SWAA_RETURN_IF_ERROR(TakeStopping(request.mutable_stopping_options()));
  SWAA_RETURN_IF_ERROR(TakeSampling(request.mutable_sampling_params()));
  if (auto priority = absl::GetFlag(FLAGS_priority)) request.set_priority(*priority);
  if (const std::string salt = absl::GetFlag(FLAGS_cache_salt); !salt.empty()) {
    request.set_cache_salt(salt);
  }
  request.set_request_id(absl::GetFlag(FLAGS_request_id));
  return request;
}

}  // namespace swaa::tools
