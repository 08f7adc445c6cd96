// Attention on CUDA: where the parts of a workspace lie, and how large plans can be.

#ifndef SWAA_KERNELS_CUDA_ATTENTION_ATTENTION_LIMITS_H_
#define SWAA_KERNELS_CUDA_ATTENTION_ATTENTION_LIMITS_H_

#include <cstdint>

#include "kernels/cuda/attention/attention.h"

namespace swaa::kernels::cuda {

// Offsets in bytes. The first three parts are zero between launches.
struct WorkspaceLayout {
  int64_t counter = 0;
  int64_t prefill_arrivals = 0;
  int64_t decode_partials = 0;
  int64_t prefill_partials = 0;
  int64_t bytes = 0;
};
WorkspaceLayout LayoutWorkspace(const AttentionShape& shape, int32_t multiprocessors);

// Blocks of a decode launch.
int32_t DecodeBlocks(int32_t multiprocessors);

// Results of prefill parts that the workspace holds.
int32_t MaxPrefillResults(int32_t multiprocessors);

inline int64_t AlignUp(int64_t bytes, int64_t to) { return (bytes + to - 1) / to * to; }

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_ATTENTION_ATTENTION_LIMITS_H_
