// Kernels, CPU backend: which attention kernels serve, measured on this machine. Instruction sets
// say what can run, not what is fast: bf16 dot products take half of f32's time on one processor
// and twice of it on another, and fetching ahead to the second-level cache gains a third here and
// loses a little there.

#ifndef SWAA_KERNELS_CPU_ATTENTION_CHOICE_H_
#define SWAA_KERNELS_CPU_ATTENTION_CHOICE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cpu/attention_task.h"
#include "kernels/cpu/instruction_set.h"
#include "kernels/types.h"

namespace swaa::kernels::cpu {

// Tasks of so many rows are the decode kernel's (one query of a group of heads, short chunks): they
// are bound by the reading of pages. Larger ones are the prefill kernel's.
inline constexpr int32_t kMaxDecodeRows = 16;

struct AttentionKernels {
  const AttentionVariant* prefill = nullptr;
  const AttentionVariant* decode = nullptr;
};

// All variants of that instruction set, the one to prefer first.
std::vector<const AttentionVariant*> AttentionVariantsOf(InstructionSet set, DataType kv);

// The first variant of that set, unmeasured.
AttentionKernels DefaultAttentionKernels(InstructionSet set, DataType kv);

// What competes for a process: the variants of `set` alone where it was `named`, else those of
// every set up to it that might be fastest, the highest set first.
std::vector<const AttentionVariant*> AttentionCandidates(InstructionSet set, bool named,
                                                         DataType kv);

// Index of the entry to take of times in order of preference (at least one, all positive): a later
// one must be a tenth faster than the one preferred to it.
size_t PreferredFastest(std::span<const double> seconds);

// The fastest of AttentionCandidates for prefill and for decode. Takes some milliseconds of one
// thread the first time in a process for each combination; later calls answer the same. Any thread.
AttentionKernels MeasuredAttentionKernels(InstructionSet set, bool named, DataType kv);

}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_ATTENTION_CHOICE_H_
