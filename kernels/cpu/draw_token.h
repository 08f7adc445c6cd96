// Draws a token and reports log-probabilities from one row of logits, on the processor. Pure
// functions, any thread; what they compute is said in kernels/sampling.h.

#ifndef SWAA_KERNELS_CPU_DRAW_TOKEN_H_
#define SWAA_KERNELS_CPU_DRAW_TOKEN_H_

#include <cstdint>
#include <span>

#include "kernels/cpu/slot_history.h"
#include "kernels/sampling.h"

namespace swaa::kernels::cpu {

// What a draw depends on besides the logits and the parameters.
struct DrawContext {
  uint64_t output_index = 0;
  const SlotHistory* history = nullptr;     // only read when params.needs_history(); null: empty
  std::span<const int32_t> forbidden = {};  // never drawn
};

// The next token for logits [vocab]; `params` have passed Validate. Time is that of a few scans of
// the row: noise is computed only for tokens that it can make win, and with top-k or top-p only the
// row's head is put in order. CHECKs that ids are in range.
int32_t DrawToken(std::span<const float> logits, const SamplingParams& params,
                  const DrawContext& context);

// `token` with its log-probability and the `alternatives` most likely tokens (0: none), by a
// log-softmax of logits [vocab] that is summed in double.
ScoredToken ScoreToken(std::span<const float> logits, int32_t token, int32_t alternatives);

}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_DRAW_TOKEN_H_
