// The rows of a step whose logits are wanted, as sequences of their own: in the last layer nothing
// else needs to go past keys and values.

#ifndef SWAA_KERNELS_WANTED_ROWS_H_
#define SWAA_KERNELS_WANTED_ROWS_H_

#include <cstdint>
#include <vector>

#include "kernels/step.h"

namespace swaa::kernels {

struct WantedRows {
  std::vector<int32_t> rows;            // of the step, in order
  std::vector<SequenceRows> sequences;  // of them, numbered from 0; neighbours stay together
  std::vector<KeySpan> spans;           // [sequences], in the last layer
};

// Reuses the memory of `wanted`.
void FindWantedRows(const StepInput& input, WantedRows* wanted);

}  // namespace swaa::kernels

#endif  // SWAA_KERNELS_WANTED_ROWS_H_
