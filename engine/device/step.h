// A step as the engine hands it to a device, and what comes back. Plain data, owned by whoever
// holds it: nothing in it points into the engine's state, so the engine may plan on while a device
// computes.

#ifndef SWAA_ENGINE_DEVICE_STEP_H_
#define SWAA_ENGINE_DEVICE_STEP_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "engine/device/adapter.h"
#include "kernels/step.h"

namespace swaa {

using kernels::kDrawnToken;
using kernels::LogitsRow;
using kernels::PageTableUpdate;
using kernels::ScoredToken;
using kernels::SlotSetup;

struct Step {
  uint64_t id = 0;
  std::vector<int32_t> tokens;                   // [rows]; kDrawnToken: what the slot drew last
  std::vector<kernels::SequenceRows> sequences;  // in order of rows; a request may have two
  std::vector<uint8_t> layer_class;              // [layers]; at most 256 classes
  std::vector<kernels::KeySpan> spans;           // [classes, sequences]
  std::vector<PageTableUpdate> page_table_updates;
  std::vector<SlotSetup> setups;
  std::vector<LogitsRow> logits;                               // in order of rows
  std::vector<std::shared_ptr<const DeviceAdapter>> adapters;  // that its sequences have, each once
  std::vector<int16_t> sequence_adapters;  // [sequences]: a place in adapters, or -1; empty: all -1

  // All but the adapters themselves, which the device knows as its own.
  kernels::StepInput input() const {
    return {tokens, sequences, layer_class,      spans, page_table_updates,
            setups, logits,    sequence_adapters};
  }
};

struct StepResult {
  uint64_t id = 0;
  absl::Status status;              // not OK: nothing of the step counts
  bool device_lost = false;         // and no later step can succeed: the process is to end
  std::vector<ScoredToken> tokens;  // [logits]: drawn or known; logprob and top only where asked
  double seconds = 0;               // that the device worked on it
};

}  // namespace swaa

#endif  // SWAA_ENGINE_DEVICE_STEP_H_
