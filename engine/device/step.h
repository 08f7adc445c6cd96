// A step as the engine hands it to a device, and what comes back. Plain data, owned by whoever
// holds it: nothing in it points into the engine's state, so the engine may plan on while a device
// computes.

#ifndef SWAA_ENGINE_DEVICE_STEP_H_
#define SWAA_ENGINE_DEVICE_STEP_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "engine/sampling/sampling_params.h"
#include "kernels/types.h"

namespace swaa {

// Sets one entry of the device's page table, before anything of the step is computed.
struct PageTableUpdate {
  int32_t slot = 0;
  int32_t layer = 0;
  int32_t block = 0;
  int32_t page = 0;
};

// A row whose logits are wanted: to draw the next token, or to score a token that is known already.
struct LogitsRow {
  int32_t row = 0;                     // of the step
  std::optional<int32_t> known_token;  // score this; absent: draw
  int32_t alternatives = -1;  // -1: no log-probabilities; n: the token's own and n most likely
  // For a draw (known_token absent):
  std::shared_ptr<const SamplingParams> sampling;
  uint64_t output_index = 0;
  std::vector<int32_t> prompt;  // filled only where the sampling needs the history
  std::vector<int32_t> output;
  std::vector<int32_t> forbidden;
};

struct Step {
  uint64_t id = 0;
  std::vector<int32_t> tokens;  // [rows]
  std::vector<kernels::SequenceRows>
      sequences;                        // in order of rows; one request may have two (one a phase)
  std::vector<kernels::KeySpan> spans;  // [sequences, layers]
  std::vector<PageTableUpdate> page_table_updates;
  std::vector<LogitsRow> logits;  // in order of rows
};

struct StepResult {
  uint64_t id = 0;
  absl::Status status;              // not OK: nothing of the step counts
  std::vector<ScoredToken> tokens;  // [logits]: drawn or known; logprob and top only where asked
  double seconds = 0;               // device time
};

}  // namespace swaa

#endif  // SWAA_ENGINE_DEVICE_STEP_H_
