// Tensors that hold a weight of every expert, taken apart.

#ifndef SWAA_ENGINE_CHECKPOINT_EXPERT_TENSORS_H_
#define SWAA_ENGINE_CHECKPOINT_EXPERT_TENSORS_H_

#include "absl/status/status.h"
#include "engine/checkpoint/model_config.h"
#include "engine/checkpoint/stored_tensor.h"
#include "engine/checkpoint/weight_table.h"

namespace swaa {

// Replaces each of them by its parts, under the names that WeightName gives those: GGUF files have
// [experts, rows, columns] for each of gate, up and down; Hugging Face's folders have gate and up
// under one another, [experts, 2 rows, columns], where transformers 5 wrote them as it holds them.
// INVALID_ARGUMENT names one whose shape is not what the configuration asks for.
absl::Status SplitExpertTensors(const ModelConfig& config, WeightNaming naming,
                                StoredTensors* tensors);

}  // namespace swaa

#endif  // SWAA_ENGINE_CHECKPOINT_EXPERT_TENSORS_H_
