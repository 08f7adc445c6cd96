// The rows of a step by the adapter that they have.

#include "kernels/adapter_rows.h"

#include <algorithm>
#include <cstddef>

namespace swaa::kernels {
namespace {

// A counting sort, as there are few adapters. adapter_of(i) is that of row i, or -1.
template <typename AdapterOf>
void Group(int32_t rows, int32_t adapters, const AdapterOf& adapter_of, AdapterRows* grouped) {
  std::vector<int32_t> next(adapters + 1);  // one place behind, so that sums become beginnings
  for (int32_t row = 0; row < rows; ++row) {
    if (adapter_of(row) >= 0) ++next[adapter_of(row) + 1];
  }
  grouped->groups.clear();
  for (int32_t adapter = 0; adapter < adapters; ++adapter) {
    const int32_t count = next[adapter + 1];
    if (count > 0) grouped->groups.push_back({adapter, next[adapter], count});
    next[adapter + 1] += next[adapter];
  }
  grouped->rows.resize(next[adapters]);
  for (int32_t row = 0; row < rows; ++row) {
    if (adapter_of(row) >= 0) grouped->rows[next[adapter_of(row)]++] = row;
  }
}

}  // namespace

void GroupRowsByAdapter(const StepInput& input, std::span<const int32_t> wanted, AdapterRows* all,
                        AdapterRows* of_wanted) {
  std::vector<int16_t> adapter_of_row;
  int32_t adapters = 0;
  if (!input.sequence_adapters.empty()) {
    adapters = std::max(
        0, 1 + *std::max_element(input.sequence_adapters.begin(), input.sequence_adapters.end()));
    adapter_of_row.resize(input.tokens.size());
    for (size_t s = 0; s < input.sequences.size(); ++s) {
      const SequenceRows& sequence = input.sequences[s];
      std::fill_n(adapter_of_row.begin() + sequence.first_row, sequence.query_count,
                  input.sequence_adapters[s]);
    }
  }
  const auto of_row = [&](int32_t row) { return adapter_of_row[row]; };
  Group(static_cast<int32_t>(adapter_of_row.size()), adapters, of_row, all);
  const int32_t wanted_rows = adapter_of_row.empty() ? 0 : static_cast<int32_t>(wanted.size());
  Group(
      wanted_rows, adapters, [&](int32_t row) { return adapter_of_row[wanted[row]]; }, of_wanted);
}

}  // namespace swaa::kernels
