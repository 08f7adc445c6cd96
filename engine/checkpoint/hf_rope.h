// Rotary embedding as config.json describes it.

#ifndef SWAA_ENGINE_CHECKPOINT_HF_ROPE_H_
#define SWAA_ENGINE_CHECKPOINT_HF_ROPE_H_

#include "absl/status/status.h"
#include "engine/checkpoint/hf_object.h"
#include "engine/checkpoint/model_config.h"

namespace swaa {

// Fills rope_theta and rope_scaling, and where YaRN reaches further than max_context_tokens says,
// that. Reads what transformers 4 writes (rope_theta and rope_scaling beside each other) and what
// transformers 5 does (both in rope_parameters), by the latter's rules: rope_scaling wins over
// rope_parameters. UNIMPLEMENTED: another kind of scaling, by name.
absl::Status ReadHfRope(const HfObject& object, ModelConfig* config);

}  // namespace swaa

#endif  // SWAA_ENGINE_CHECKPOINT_HF_ROPE_H_
