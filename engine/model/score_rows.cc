// From logits to tokens.

#include "engine/model/score_rows.h"

#include "base/check.h"

namespace swaa {
namespace {

ScoredToken ScoreRow(const LogitsRow& row, std::span<const float> logits) {
  const int32_t token = row.known_token.has_value()
                            ? *row.known_token
                            : DrawToken(logits, *row.sampling,
                                        {row.output_index, row.prompt, row.output, row.forbidden});
  if (row.alternatives < 0) return {.token = token};
  return ScoreToken(logits, token, row.alternatives);
}

}  // namespace

void ScoreRows(std::span<const LogitsRow> rows, const float* logits, int64_t vocab_size,
               std::span<ScoredToken> results) {
  SWAA_CHECK_EQ(rows.size(), results.size());
  const auto count = static_cast<int64_t>(rows.size());
#pragma omp parallel for schedule(dynamic) if (count > 1)
  for (int64_t i = 0; i < count; ++i) {
    results[i] = ScoreRow(rows[i], {logits + i * vocab_size, static_cast<size_t>(vocab_size)});
  }
}

}  // namespace swaa
