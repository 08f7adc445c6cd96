// A slot's counts.

#include "kernels/cpu/slot_history.h"

#include "base/check.h"
#include "kernels/sampling_math.h"

namespace swaa::kernels::cpu {

SlotHistory::SlotHistory(int64_t vocab_size, std::span<const int32_t> prompt,
                         std::span<const int32_t> output)
    : history_(vocab_size) {
  for (const int32_t token : prompt) Seen(token) |= kInPrompt;
  for (const int32_t token : output) AddOutput(token);
}

void SlotHistory::AddOutput(int32_t token) { ++Seen(token); }

uint32_t& SlotHistory::Seen(int32_t token) {
  SWAA_CHECK(token >= 0 && token < vocab_size())
      << "token " << token << " of a vocabulary of " << vocab_size();
  uint32_t& history = history_[token];
  if (history == 0) distinct_.push_back(token);
  return history;
}

}  // namespace swaa::kernels::cpu
