// What a revision stands for: where its arms part, its content hash, its form in a store.

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include <google/protobuf/util/json_util.h>
#include <nlohmann/json.hpp>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "server/experiments/assignment.h"
#include "server/experiments/experiment_definition.h"

namespace swaa::server {
namespace {

// The recipe as it computes: what has no effect is neutral.
Recipe Canonical(const Recipe& recipe) {
  Recipe canonical = recipe;
  const auto full = std::count(recipe.layer_full.begin(), recipe.layer_full.end(), true);
  if (!recipe.window.has_value() || full == recipe.num_layers()) {
    canonical.window.reset();
    canonical.sinks = 0;
    canonical.layer_full.assign(recipe.layer_full.size(), false);
    canonical.decode_full = canonical.layer_full;
    return canonical;
  }
  for (size_t layer = 0; layer < recipe.layer_full.size(); ++layer) {
    if (recipe.layer_full[layer]) canonical.decode_full[layer] = true;
  }
  return canonical;
}

std::vector<int> Indices(const std::vector<bool>& layers) {
  std::vector<int> indices;
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    if (layers[layer]) indices.push_back(static_cast<int>(layer));
  }
  return indices;
}

nlohmann::json ToJson(const ArmRecipe& arm) {
  const Recipe& recipe = arm.recipe;
  nlohmann::json json = {{"num_layers", recipe.num_layers()}};
  if (recipe.window.has_value()) {
    json["sliding_window_tokens"] = *recipe.window;
    json["sink_tokens"] = recipe.sinks;
    json["full_attention_layers"] = Indices(recipe.layer_full);
    json["full_attention_decode"] = Indices(recipe.decode_full);
  }
  json["thinking_mode"] = static_cast<int>(arm.thinking_mode);
  json["lora_name"] = arm.lora_name;
  return json;
}

}  // namespace

// A recipe of {W, K, F, D} sees everything from every position below W + K.
std::optional<int64_t> TriggerPositions(const std::vector<ArmRecipe>& arms) {
  const Recipe first = Canonical(arms[0].recipe);
  std::optional<int64_t> least;
  bool all_equal = true;
  for (const ArmRecipe& arm : arms) {
    if (arm.lora_name != arms[0].lora_name || arm.thinking_mode != arms[0].thinking_mode) return 0;
    const Recipe canonical = Canonical(arm.recipe);
    all_equal = all_equal && canonical == first;
    if (!canonical.window.has_value()) continue;
    const int64_t same = int64_t{*canonical.window} + canonical.sinks;
    least = std::min(least.value_or(same), same);
  }
  return all_equal ? std::nullopt : least;
}

// JSON is the canonical form: its keys are sorted, its strings quoted, its numbers exact.
uint64_t ContentHash(const ExperimentDefinition& definition) {
  const v1::Experiment& experiment = definition.experiment;
  nlohmann::json arms = nlohmann::json::array();
  for (int i = 0; i < experiment.arms_size(); ++i) {
    arms.push_back({experiment.arms(i).name(), experiment.arms(i).weight(),
                    ToJson(definition.recipes[static_cast<size_t>(i)])});
  }
  nlohmann::json metrics;
  for (const v1::ExperimentMetric& metric : experiment.metrics()) {
    metrics[metric.name()] = {static_cast<int>(metric.role()), static_cast<int>(metric.scale()),
                              metric.higher_is_better(), metric.minimum_detectable_effect()};
  }
  const nlohmann::json content = {{"id", experiment.id()},
                                  {"salt", experiment.salt()},
                                  {"layer", {experiment.layer_begin(), experiment.layer_end()}},
                                  {"arms", arms},
                                  {"control", experiment.control_arm()},
                                  {"design",
                                   {static_cast<int>(experiment.design()),
                                    experiment.window_seconds(), experiment.washout_seconds()}},
                                  {"metrics", metrics},
                                  {"alpha", experiment.alpha()}};
  return Fmix64(Fnv1a64(content.dump()));
}

std::string RevisionJson(const ExperimentDefinition& definition) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string experiment;
  SWAA_CHECK(
      google::protobuf::util::MessageToJsonString(definition.experiment, &experiment, options)
          .ok());
  nlohmann::json json = {{"experiment", nlohmann::json::parse(experiment)},
                         {"content_hash", absl::StrCat(absl::Hex(definition.content_hash))}};
  if (definition.trigger_positions.has_value()) {
    json["trigger_positions"] = *definition.trigger_positions;
  }
  for (const ArmRecipe& recipe : definition.recipes) json["recipes"].push_back(ToJson(recipe));
  return json.dump();
}

absl::StatusOr<StoredRevision> ParseRevisionJson(const std::string& json) {
  const absl::Status broken = absl::DataLossError(
      absl::StrCat("revision: ", QuotedValue(json), " is not what this program stores"));
  const nlohmann::json parsed = nlohmann::json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object() || !parsed.contains("experiment") || !parsed.contains("content_hash") ||
      !parsed["content_hash"].is_string()) {
    return broken;
  }
  StoredRevision stored;
  if (!google::protobuf::util::JsonStringToMessage(parsed["experiment"].dump(), &stored.experiment)
           .ok() ||
      !absl::SimpleHexAtoi(parsed["content_hash"].get<std::string>(), &stored.content_hash) ||
      stored.experiment.arms_size() < 2 ||
      FindArm(stored.experiment, stored.experiment.control_arm()) < 0) {
    return broken;
  }
  if (parsed.contains("trigger_positions") && parsed["trigger_positions"].is_number_integer()) {
    stored.trigger_positions = parsed["trigger_positions"].get<int64_t>();
  }
  return stored;
}

}  // namespace swaa::server
