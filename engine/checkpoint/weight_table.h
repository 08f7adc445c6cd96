// Which weights a configuration has, of what shape, and what files call them.

#ifndef SWAA_ENGINE_CHECKPOINT_WEIGHT_TABLE_H_
#define SWAA_ENGINE_CHECKPOINT_WEIGHT_TABLE_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/model_config.h"

namespace swaa {

// How names differ between kinds of file.
enum class WeightNaming {
  kGguf,         // blk.<layer>.attn_q.weight
  kHuggingFace,  // model.layers.<layer>.self_attn.q_proj.weight
};

// How often a weight is there.
enum class WeightPer { kModel, kLayer, kExpert };

struct WeightSpec {
  WeightRole role;
  WeightPer per;
  bool (*present)(const ModelConfig& config, int32_t layer);  // layer 0 of WeightPer::kModel
  int64_t (*rows)(const ModelConfig& config);                 // null: a vector
  int64_t (*columns)(const ModelConfig& config);
  std::string_view gguf;          // with "{}" for the layer; all experts are one tensor
  std::string_view hugging_face;  // with "{}" for the layer, and another for the expert
};

std::span<const WeightSpec> WeightSpecs();
const WeightSpec& SpecOf(WeightRole role);

// The keys of all weights of one kind that the configuration has.
std::vector<WeightKey> WeightKeys(const WeightSpec& spec, const ModelConfig& config);
// [rows, columns], or [size] of a vector.
std::vector<int64_t> WeightShape(const WeightSpec& spec, const ModelConfig& config);
// Of one expert where a tensor holds all of them: "[expert]" behind the tensor's name.
std::string WeightName(WeightKey key, WeightNaming naming);

}  // namespace swaa

#endif  // SWAA_ENGINE_CHECKPOINT_WEIGHT_TABLE_H_
