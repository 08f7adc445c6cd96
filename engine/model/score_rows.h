// From logits to tokens: draws and scores the wanted rows of a step.

#ifndef SWAA_ENGINE_MODEL_SCORE_ROWS_H_
#define SWAA_ENGINE_MODEL_SCORE_ROWS_H_

#include <cstdint>
#include <span>

#include "engine/device/step.h"

namespace swaa {

// results[i]: the token of rows[i], known or drawn from logits + i * vocab_size, with
// log-probabilities where rows[i] asks for them. Parallel over rows in the OpenMP threads of the
// calling thread.
void ScoreRows(std::span<const LogitsRow> rows, const float* logits, int64_t vocab_size,
               std::span<ScoredToken> results);

}  // namespace swaa

#endif  // SWAA_ENGINE_MODEL_SCORE_ROWS_H_
