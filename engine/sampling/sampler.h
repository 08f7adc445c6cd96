// Draws tokens and reports log-probabilities from a row of logits. Pure functions, any thread.

#ifndef SWAA_ENGINE_SAMPLING_SAMPLER_H_
#define SWAA_ENGINE_SAMPLING_SAMPLER_H_

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "engine/sampling/sampling_params.h"

namespace swaa {

using kernels::ScoredToken;

// What a draw depends on besides the logits.
struct DrawContext {
  uint64_t output_index = 0;             // t: the draw is a pure function of (logits, seed, t)
  std::span<const int32_t> prompt = {};  // only read when params.needs_history()
  std::span<const int32_t> output = {};
  std::span<const int32_t> forbidden = {};  // never drawn (end tokens before min_tokens)
};

// The next token for logits [vocab]; `params` have passed Validate. Greedy takes the smallest id
// among equals. Otherwise the tokens kept by the filters are walked in descending order of
// probability, ties by id, until their share of the whole exceeds a uniform number of (seed, t). At
// least one token is kept; should every token be forbidden, none is. A NaN logit counts as the
// lowest there is. Time is that of a few scans of the row; the row is never sorted whole unless it
// is flat. CHECKs that ids are in range.
int32_t DrawToken(std::span<const float> logits, const SamplingParams& params,
                  const DrawContext& context);

// `token` with its log-probability and the `alternatives` most likely tokens (0: none), by a
// log-softmax of logits [vocab] that is summed in double.
ScoredToken ScoreToken(std::span<const float> logits, int32_t token, int32_t alternatives);

}  // namespace swaa

#endif  // SWAA_ENGINE_SAMPLING_SAMPLER_H_
