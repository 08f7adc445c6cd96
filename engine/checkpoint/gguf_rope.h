// Rotary embedding as GGUF metadata describe it.

#ifndef SWAA_ENGINE_CHECKPOINT_GGUF_ROPE_H_
#define SWAA_ENGINE_CHECKPOINT_GGUF_ROPE_H_

#include "absl/status/status.h"
#include "engine/checkpoint/gguf_keys.h"
#include "engine/checkpoint/model_config.h"

namespace swaa {

// Fills rope_theta, rope_scaling and rope_frequency_factors; wants max_context_tokens and head_dim
// filled. As llama.cpp reads them: a factor without a type is linear scaling, and a type "none"
// switches a factor off. UNIMPLEMENTED: another type, by name.
absl::Status ReadGgufRope(const GgufKeys& keys, ModelConfig* config);

}  // namespace swaa

#endif  // SWAA_ENGINE_CHECKPOINT_GGUF_ROPE_H_
