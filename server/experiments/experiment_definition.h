// One experiment of the configuration: checked, with every default filled in, its recipes resolved.

#ifndef SWAA_SERVER_EXPERIMENTS_EXPERIMENT_DEFINITION_H_
#define SWAA_SERVER_EXPERIMENTS_EXPERIMENT_DEFINITION_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/recipe/recipe.h"
#include "swaa/v1/experiment.pb.h"

namespace swaa::server {

// Bits of UnitRecord::arms_seen.
inline constexpr int kMaxArms = 64;

// What an arm computes with.
struct ArmRecipe {
  Recipe recipe;
  ThinkingMode thinking_mode = ThinkingMode::kDefault;
  std::string lora_name;  // empty: base model
};

// The registered recipes, as far as experiments need them.
struct RecipeView {
  std::function<std::optional<ArmRecipe>(const std::string& name)> find;
  std::string names;  // for messages: "fast, full"
};

// Immutable value.
struct ExperimentDefinition {
  v1::Experiment experiment;       // nothing absent but start_time and end_time
  std::vector<ArmRecipe> recipes;  // [arms]
  int32_t control = 0;             // index of the control arm
  // All arms compute the same for a sequence of no more positions than this. 0: they differ from
  // the start, by adapter or thinking. Absent: they compute the same for ever.
  std::optional<int64_t> trigger_positions;
  // Of what a revision stands for: id, salt, layer range, arms, weights, control, resolved recipes,
  // design, metrics, alpha. Coverage, times and maximum_harm are not in it.
  uint64_t content_hash = 0;

  // Whether the arms' recipes made a difference to a request of so many positions.
  bool Triggers(int64_t positions) const {
    return trigger_positions.has_value() && positions > *trigger_positions;
  }
};

// INVALID_ARGUMENT with field, value and way out; fields are named below `path`
// ("experiments[0]" -> "experiments[0].arms[1].weight").
absl::StatusOr<ExperimentDefinition> DefineExperiment(const v1::Experiment& proto,
                                                      const RecipeView& recipes,
                                                      const std::string& path);

// The two last fields of a definition, from the others.
std::optional<int64_t> TriggerPositions(const std::vector<ArmRecipe>& arms);
uint64_t ContentHash(const ExperimentDefinition& definition);

// What a store keeps of a revision (RevisionRecord::config_json): the experiment with its defaults
// and, for people, its recipes in full.
std::string RevisionJson(const ExperimentDefinition& definition);

struct StoredRevision {
  v1::Experiment experiment;
  uint64_t content_hash = 0;
  std::optional<int64_t> trigger_positions;
};
// DATA_LOSS for what RevisionJson did not write.
absl::StatusOr<StoredRevision> ParseRevisionJson(const std::string& json);

// Index of the arm of that name; -1: none.
int32_t FindArm(const v1::Experiment& experiment, const std::string& name);

int64_t ToUnixMs(const google::protobuf::Timestamp& time);

// A client's text in quotes for a message: escaped where it is not printable ASCII, cut where long.
std::string QuotedValue(const std::string& text);

}  // namespace swaa::server

#endif  // SWAA_SERVER_EXPERIMENTS_EXPERIMENT_DEFINITION_H_
