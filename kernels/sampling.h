// How a token is drawn from a row of logits, and what is asked of one. Plain values that the engine
// fills and every backend reads.

#ifndef SWAA_KERNELS_SAMPLING_H_
#define SWAA_KERNELS_SAMPLING_H_

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace swaa::kernels {

// Order of application: bias, penalties, temperature, top-k, top-p, min-p. Ranges are those that
// the engine's Validate (engine/sampling/sampling_params.h) lets through.
struct SamplingParams {
  float temperature = 1;         // 0 is greedy
  float top_p = 1;               // (0, 1]
  uint32_t top_k = 0;            // 0 keeps every token
  float min_p = 0;               // [0, 1]
  float frequency_penalty = 0;   // [-2, 2], counts output
  float presence_penalty = 0;    // [-2, 2], counts output
  float repetition_penalty = 1;  // (0, 2], counts prompt and output; 1 is neutral
  uint64_t seed = 0;
  std::vector<std::pair<int32_t, float>> logit_bias = {};  // by rising token, each once

  bool needs_history() const {
    return frequency_penalty != 0 || presence_penalty != 0 || repetition_penalty != 1;
  }
};

// A token and its log-probability before bias, penalties, temperature and filters.
struct ScoredToken {
  int32_t token = -1;
  float logprob = 0;
  std::vector<std::pair<int32_t, float>> top = {};  // most likely first; ties by smaller id
};

// What a slot's draws depend on; sent when a request takes the slot. What the slot draws later it
// counts itself.
struct SlotSetup {
  int32_t slot = 0;
  std::shared_ptr<const SamplingParams> sampling;
  std::shared_ptr<const std::vector<int32_t>> prompt;  // only where sampling needs the history
  std::vector<int32_t> output;     // known output tokens, only where sampling needs the history
  std::vector<int32_t> forbidden;  // never drawn where a row says so: end and stop tokens
};

// A row whose logits are wanted: to draw the slot's next token, or to score one that is known.
struct LogitsRow {
  int32_t row = 0;  // of the step
  int32_t slot = 0;
  int32_t known_token = -1;   // score this; -1: draw
  int32_t alternatives = -1;  // -1: no log-probabilities; n: the token's own and the n most likely
  uint32_t output_index = 0;  // t: a draw is a function of (logits, history, seed, t)
  bool forbid = false;        // the slot's forbidden tokens are not drawn
};

}  // namespace swaa::kernels

#endif  // SWAA_KERNELS_SAMPLING_H_
