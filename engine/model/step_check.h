// Whether a step fits a device: what a wrong plan would otherwise make the kernels do.

#ifndef SWAA_ENGINE_MODEL_STEP_CHECK_H_
#define SWAA_ENGINE_MODEL_STEP_CHECK_H_

#include "absl/status/status.h"
#include "engine/device/device.h"
#include "engine/device/step.h"

namespace swaa {

// INTERNAL, with field, value and bound, for: more rows than max_step_tokens, sequences that do not
// cover the rows in order, slots, layers, blocks, pages, tokens, positions or logits rows out of
// range, spans that are not [sequences, layers], a draw without sampling parameters, a sequence
// whose adapter is not among the step's.
absl::Status CheckStep(const Step& step, const DeviceInfo& info, int32_t vocab_size);

}  // namespace swaa

#endif  // SWAA_ENGINE_MODEL_STEP_CHECK_H_
