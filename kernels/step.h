// What a backend is told of a step: rows of sequences, which keys each layer's queries see, what
// changes in the page table, and whose logits are wanted.

#ifndef SWAA_KERNELS_STEP_H_
#define SWAA_KERNELS_STEP_H_

#include <cstdint>
#include <span>

#include "kernels/sampling.h"
#include "kernels/types.h"

namespace swaa::kernels {

class LoraWeight;  // kernels/operators.h

// Stands for the token that the row's slot drew last, which only the device may know yet.
inline constexpr int32_t kDrawnToken = -1;

// Sets one entry of the device's page table, before anything of the step is computed.
struct PageTableUpdate {
  int32_t slot = 0;
  int32_t layer = 0;
  int32_t block = 0;
  int32_t page = 0;
};

// Views of the host's memory, read during Operators::Stage alone.
struct StepInput {
  std::span<const int32_t> tokens;          // [rows]; kDrawnToken: what the row's slot drew last
  std::span<const SequenceRows> sequences;  // in order of rows; one slot may have two (one a phase)
  // Layers whose spans are equal share a class; class c of sequence s sees
  // spans[c * sequences.size() + s].
  std::span<const uint8_t> layer_class;  // [layers]
  std::span<const KeySpan> spans;        // [classes, sequences]
  std::span<const PageTableUpdate> page_table_updates;
  std::span<const SlotSetup> setups;  // before anything is drawn
  std::span<const LogitsRow> logits;  // in order of rows
  // [sequences]: which of the step's adapters each has, -1: none; empty: all have none.
  std::span<const int16_t> sequence_adapters;
  // The step's adapters, each by its weights: those of all products that adapters of the model may
  // change, in one order for all; null: nothing is added there. They live until Wait has returned
  // the step.
  std::span<const std::span<const LoraWeight* const>> adapters;

  int32_t num_classes() const {
    return sequences.empty() ? 0 : static_cast<int32_t>(spans.size() / sequences.size());
  }
};

}  // namespace swaa::kernels

#endif  // SWAA_KERNELS_STEP_H_
