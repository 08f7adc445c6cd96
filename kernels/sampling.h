// What is wanted of logits: plain descriptions that every backend's sampler reads, and what it
// gives back.
//
// The draw of output t is the token with the largest logit / temperature + noise among those that
// bias, penalties, top-k, top-p and min-p leave, in that order of application; the noise is a pure
// function of (seed, t, token) (kernels/gumbel_noise.h). Equal scores go to the smaller id; a NaN
// logit counts as the lowest there is; a temperature of 0 takes the largest logit. Top-k and top-p
// cut the order of falling logits, equal ones by id. At least one token is left; should every token
// be forbidden, none is.

#ifndef SWAA_KERNELS_SAMPLING_H_
#define SWAA_KERNELS_SAMPLING_H_

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace swaa::kernels {

inline constexpr int32_t kMaxLogitBiases = 300;
inline constexpr int32_t kMaxAlternatives = 20;

struct SamplingParams {
  float temperature = 1;         // 0 is greedy
  float top_p = 1;               // (0, 1]
  uint32_t top_k = 0;            // 0 keeps every token
  float min_p = 0;               // [0, 1]
  float frequency_penalty = 0;   // [-2, 2], counts output
  float presence_penalty = 0;    // [-2, 2], counts output
  float repetition_penalty = 1;  // (0, 2], counts prompt and output; 1 is neutral
  uint64_t seed = 0;
  // (token, added to its logit), by rising token, each once; at most kMaxLogitBiases.
  std::vector<std::pair<uint32_t, float>> logit_bias = {};

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

// What a slot's draws need from now on, when a request takes the slot. Plain data; holds what it
// names for as long as it lives.
struct SlotSetup {
  int32_t slot = 0;
  std::shared_ptr<const SamplingParams> sampling;
  std::shared_ptr<const std::vector<int32_t>> prompt;  // only where sampling->needs_history()
  std::vector<int32_t> output;     // all that is known of it; what is drawn later is counted then
  std::vector<int32_t> forbidden;  // never drawn by rows with `forbid`
};

// A row of logits, to draw the slot's next token from or to score a token that is known. In one
// call at most one row of a slot draws.
struct LogitsRow {
  int32_t row = 0;  // of the step
  int32_t slot = 0;
  int32_t known_token = -1;   // score it; -1: draw
  int32_t alternatives = -1;  // -1: no log-probabilities; n: the token's own and n most likely
  uint32_t output_index = 0;  // t of a draw
  bool forbid = false;        // the slot's forbidden tokens are (below min_tokens)
};

}  // namespace swaa::kernels

#endif  // SWAA_KERNELS_SAMPLING_H_
