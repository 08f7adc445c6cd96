// What a slot's penalties need of its prompt and output, kept while the request runs.

#ifndef SWAA_KERNELS_CPU_SLOT_HISTORY_H_
#define SWAA_KERNELS_CPU_SLOT_HISTORY_H_

#include <cstdint>
#include <span>
#include <vector>

namespace swaa::kernels::cpu {

// Counts of every token, and the list of those that have one: adding a token takes constant time,
// applying penalties as long as there are distinct tokens, whatever the length of the context.
// 4 bytes a token of the vocabulary and 4 a distinct token: at most 1.2 MB for 152,000 tokens.
class SlotHistory {
 public:
  // CHECKs that tokens are in 0 .. vocab_size - 1.
  SlotHistory(int64_t vocab_size, std::span<const int32_t> prompt, std::span<const int32_t> output);

  void AddOutput(int32_t token);

  // Tokens seen, each once, in no order that matters.
  std::span<const int32_t> distinct() const { return distinct_; }
  // As sampling_math.h reads it: the count in the output, and kInPrompt.
  uint32_t of(int32_t token) const { return history_[token]; }
  int64_t vocab_size() const { return static_cast<int64_t>(history_.size()); }

 private:
  uint32_t& Seen(int32_t token);

  std::vector<uint32_t> history_;  // [vocab_size]
  std::vector<int32_t> distinct_;
};

}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_SLOT_HISTORY_H_
