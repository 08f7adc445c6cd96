// Attention on CUDA: cuts the prefill rows of a step into work items. Host only, a pure function of
// its arguments, once a step and span class.

#ifndef SWAA_KERNELS_CUDA_ATTENTION_PREFILL_PLAN_H_
#define SWAA_KERNELS_CUDA_ATTENTION_PREFILL_PLAN_H_

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cuda/attention/plan_format.h"
#include "kernels/types.h"

namespace swaa::kernels::cuda {

struct PrefillPlanOptions {
  int32_t query_rows = 0;   // of a tile
  int32_t key_rows = 0;     // of a tile
  int32_t heads = 0;        // items of a tile
  int32_t blocks = 0;       // that work at a time
  int32_t max_results = 0;  // of parts that the workspace holds; below 2: keys are never split
};

// Appends the tiles of sequences[i] under spans[i] to `tiles`, longest first. Where there are few
// items for the blocks, long ones are cut by their keys, so that all blocks end together; the parts
// have heads * parts results each, max_results together at most. Reuses the memory of `tiles`.
void PlanPrefill(std::span<const SequenceRows> sequences, std::span<const KeySpan> spans,
                 const PrefillPlanOptions& options, std::vector<QueryTile>* tiles);

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_ATTENTION_PREFILL_PLAN_H_
