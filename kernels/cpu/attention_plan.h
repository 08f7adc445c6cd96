// Kernels, CPU backend: cuts one attention call into tasks of like cost, and says which of them are
// parts of the same rows. A pure function of its arguments.

#ifndef SWAA_KERNELS_CPU_ATTENTION_PLAN_H_
#define SWAA_KERNELS_CPU_ATTENTION_PLAN_H_

#include <cstdint>
#include <vector>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/attention_task.h"

namespace swaa::kernels::cpu {

// Tasks whose keys were split: parts tasks of the same rows, in order of keys, whose partial
// results lie one after another.
struct AttentionMerge {
  AttentionTask rows;         // of the part with the first keys
  int64_t partial_begin = 0;  // in the floats of all partial results
  int32_t parts = 0;
};

struct AttentionPlan {
  struct Entry {
    AttentionTask task;
    int64_t cost = 0;
    int64_t partial_begin = -1;  // -1: writes final rows
  };
  std::vector<Entry> entries;  // longest first
  std::vector<AttentionMerge> merges;
  int64_t partial_floats = 0;
  int32_t max_rows = 0;  // of any task
};

// Floats of the partial result of a task, rounded up to whole cache lines.
int64_t PartialFloats(const AttentionTask& task);

// Rows of one KV head are cut into tiles of at most 256 query tokens and max_rows rows; a tile that
// costs more than a thread's fair share is split over its keys. The plan depends on the arguments
// and options.threads alone; it reuses the memory of `plan`.
void PlanAttention(const AttentionParams& params, const CpuAttentionOptions& options,
                   int32_t max_rows, AttentionPlan* plan);

}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_ATTENTION_PLAN_H_
