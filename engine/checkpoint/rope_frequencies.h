// A model's rotary embedding, its scaling for long contexts applied.

#ifndef SWAA_ENGINE_CHECKPOINT_ROPE_FREQUENCIES_H_
#define SWAA_ENGINE_CHECKPOINT_ROPE_FREQUENCIES_H_

#include <vector>

#include "engine/checkpoint/model_config.h"

namespace swaa {

// Radians per position, [head_dim / 2].
std::vector<float> RopeInverseFrequencies(const ModelConfig& config);

// What cosine and sine are multiplied by.
float RopeAttentionFactor(const ModelConfig& config);

}  // namespace swaa

#endif  // SWAA_ENGINE_CHECKPOINT_ROPE_FREQUENCIES_H_
