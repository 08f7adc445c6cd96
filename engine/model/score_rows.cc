// From logits to tokens.

#include "engine/model/score_rows.h"

#include <optional>

#include "base/check.h"
#include "kernels/cpu/draw_token.h"

namespace swaa {
namespace {

int32_t Draw(const LogitsRow& row, std::span<const float> logits) {
  std::optional<kernels::cpu::SlotHistory> history;
  if (row.sampling->needs_history()) {
    history.emplace(static_cast<int64_t>(logits.size()), row.prompt, row.output);
  }
  return kernels::cpu::DrawToken(logits, *row.sampling,
                                 {.output_index = row.output_index,
                                  .history = history.has_value() ? &*history : nullptr,
                                  .forbidden = row.forbidden});
}

ScoredToken ScoreRow(const LogitsRow& row, std::span<const float> logits) {
  const int32_t token = row.known_token.has_value() ? *row.known_token : Draw(row, logits);
  if (row.alternatives < 0) return {.token = token};
  return kernels::cpu::ScoreToken(logits, token, row.alternatives);
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
