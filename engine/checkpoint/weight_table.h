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

struct WeightSpec {
  WeightRole role;
  bool per_layer;
  bool (*present)(const ModelConfig& config);
  int64_t (*rows)(const ModelConfig& config);  // null: a vector
  int64_t (*columns)(const ModelConfig& config);
  std::string_view gguf;          // with "{}" for the layer
  std::string_view hugging_face;  // likewise
};

std::span<const WeightSpec> WeightSpecs();
const WeightSpec& SpecOf(WeightRole role);

// [rows, columns], or [size] of a vector.
std::vector<int64_t> WeightShape(const WeightSpec& spec, const ModelConfig& config);
std::string WeightName(const WeightSpec& spec, WeightNaming naming, int32_t layer);

}  // namespace swaa

#endif  // SWAA_ENGINE_CHECKPOINT_WEIGHT_TABLE_H_
