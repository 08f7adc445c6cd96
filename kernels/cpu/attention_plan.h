// Kernels, CPU backend: cuts the attention of a layer into tasks of like cost, and says which of
// them are parts of the same rows. A pure function of its arguments, none of which is the layer: a
// step makes one plan for all layers in which its sequences see the same keys.

#ifndef SWAA_KERNELS_CPU_ATTENTION_PLAN_H_
#define SWAA_KERNELS_CPU_ATTENTION_PLAN_H_

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/attention_task.h"

namespace swaa::kernels::cpu {

// Where a task's rows and pages are, which a layer's call turns into addresses.
struct AttentionPlace {
  int32_t slot = 0;       // row of the page table
  int64_t q_begin = 0;    // elements
  int64_t out_begin = 0;  // bytes
};

// Tasks whose keys were split: parts tasks of the same rows, in order of keys, whose partial
// results lie one after another.
struct AttentionMerge {
  AttentionTask rows;  // of the part with the first keys; without addresses
  AttentionPlace place;
  int64_t partial_begin = 0;  // in the floats of all partial results
  int32_t parts = 0;
};

struct AttentionPlan {
  struct Entry {
    AttentionTask task;  // without addresses
    AttentionPlace place;
    int64_t cost = 0;
    int64_t partial_begin = -1;  // -1: writes final rows
  };
  std::vector<Entry> entries;  // longest first
  std::vector<AttentionMerge> merges;
  int64_t partial_floats = 0;
  int32_t max_rows = 0;  // of any task
  int32_t head_dim = 0;
  int32_t pages = 0;  // of a layer of the longest sequence
};

// Rows of a task that meet the same keys.
int32_t RowsOfHead(const AttentionTask& task);

// Floats of the partial result of a task, rounded up to whole cache lines.
int64_t PartialFloats(const AttentionTask& task);

// Sequence s sees spans[s], in any mix of spans, lengths and counts. Rows of one KV head are cut
// into tiles of at most 256 query tokens and as many rows as the kernel takes; a tile of one query
// has the rows of as many KV heads as leave something to do for all threads. A tile that costs more
// than a thread's fair share is split over its keys. Reuses the memory of `plan`.
void PlanAttention(const AttentionShape& shape, std::span<const SequenceRows> sequences,
                   std::span<const KeySpan> spans, const CpuAttentionOptions& options,
                   AttentionPlan* plan);

}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_ATTENTION_PLAN_H_
