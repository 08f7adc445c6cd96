// The sampler of the CPU backend: keeps what each slot's draws need, and turns rows of logits into
// tokens.

#ifndef SWAA_KERNELS_CPU_SAMPLER_H_
#define SWAA_KERNELS_CPU_SAMPLER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "kernels/cpu/slot_history.h"
#include "kernels/sampling.h"

namespace swaa::kernels::cpu {

// Belongs to one thread. The draws of a slot depend on what it was last set up with and on what it
// drew since, on nothing else.
class CpuSampler {
 public:
  CpuSampler(int32_t num_slots, int64_t vocab_size);

  // Each slot named forgets its former request. CHECKs slots and tokens to be in range.
  void SetUp(std::span<const SlotSetup> setups);

  // results[i]: the token of rows[i], known or drawn from logits + i * vocab_size, with
  // log-probabilities where rows[i] asks for them. A drawn token is counted in its slot's history
  // and becomes its drawn(). Parallel over rows in the OpenMP threads of the calling thread.
  void Sample(const float* logits, std::span<const LogitsRow> rows, std::span<ScoredToken> results);

  // The token that the slot drew last; -1 before the first since it was set up.
  int32_t drawn(int32_t slot) const { return slots_[slot].drawn; }

 private:
  struct Slot {
    std::shared_ptr<const SamplingParams> sampling;
    std::optional<SlotHistory> history;  // only where sampling needs it
    std::vector<int32_t> forbidden;
    int32_t drawn = -1;
  };

  ScoredToken SampleRow(const LogitsRow& row, std::span<const float> logits);

  const int64_t vocab_size_;
  std::vector<Slot> slots_;
};

}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_SAMPLER_H_
