// The rows of a step whose logits are wanted.

#include "kernels/wanted_rows.h"

#include <cstddef>

namespace swaa::kernels {

void FindWantedRows(const StepInput& input, WantedRows* wanted) {
  wanted->rows.clear();
  wanted->sequences.clear();
  wanted->spans.clear();
  if (input.logits.empty()) return;
  const KeySpan* spans =
      input.spans.data() + input.layer_class.back() * input.sequences.size();  // the last layer's
  size_t s = 0;
  for (const LogitsRow& logits : input.logits) {
    while (logits.row >= input.sequences[s].first_row + input.sequences[s].query_count) ++s;
    const SequenceRows& from = input.sequences[s];
    const bool follows = !wanted->rows.empty() && wanted->rows.back() + 1 == logits.row &&
                         logits.row != from.first_row;
    if (follows) {
      ++wanted->sequences.back().query_count;
    } else {
      wanted->sequences.push_back(
          {.slot = from.slot,
           .first_row = static_cast<int32_t>(wanted->rows.size()),
           .query_count = 1,
           .first_position = from.first_position + logits.row - from.first_row});
      wanted->spans.push_back(spans[s]);
    }
    wanted->rows.push_back(logits.row);
  }
}

}  // namespace swaa::kernels
