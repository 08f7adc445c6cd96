// Attention on CUDA: what decode launches give their kernels, of either family.

#ifndef SWAA_KERNELS_CUDA_ATTENTION_DECODE_PARAMS_H_
#define SWAA_KERNELS_CUDA_ATTENTION_DECODE_PARAMS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/cuda/attention/plan_format.h"
#include "kernels/cuda/attention/prefill_params.h"
#include "kernels/cuda/attention/tensor_maps.h"
#include "kernels/types.h"

namespace swaa::kernels::cuda {

// What is still to be done to q, and to the K and V that follow it in a row (RopeAndStoreParams).
struct DecodeRope {
  const float* cos_sin = nullptr;  // [rows, head_dim], of RopeTable; null: nothing
  const float* q_norm = nullptr;   // [head_dim] or null
  const float* k_norm = nullptr;
  float norm_epsilon = 0;
  Bf16* pool = nullptr;  // that attention reads, to be written
};

struct DecodeParams {
  const Bf16* q = nullptr;            // [rows, q_stride]; heads first
  const Bf16* pool = nullptr;         // pages [K|V][kv_head][64 positions][head_dim]
  Bf16* out = nullptr;                // [rows, heads, head_dim]
  const StepHeader* step = nullptr;   // device
  const DecodePlan* plans = nullptr;  // device, [classes]
  const int32_t* table = nullptr;     // page table, from this layer on
  int64_t slot_stride = 0;            // entries from a slot to the next
  int64_t q_stride = 0;               // elements from a row of q to the next
  DecodePartial* partials = nullptr;  // [blocks]; zero between launches
  int32_t layer = 0;
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t group = 0;     // heads / kv_heads, at most kMaxGroup
  float scale_log2 = 0;  // scale * log2(e)
  DecodeRope rope;       // of Hopper's kernel alone
};

// Plans all classes of a step for so many blocks; plan_blocks: classes planned at a time. Starts
// when all before it has ended, and nothing after it starts before its end. So the decode kernel
// may read plan and page table before it waits for the kernel before it.
void LaunchDecodePlan(const StepHeader* step, DecodePlan* plans, int32_t plan_blocks,
                      int32_t kv_heads, int32_t blocks, cudaStream_t stream);

// Prepare once before the first launch, as with prefill.
absl::Status PrepareHopperDecode(int32_t head_dim, int32_t group);
void LaunchHopperDecode(int32_t head_dim, const DecodeParams& params, const PoolMaps& pool,
                        const LaunchOptions& options);

// deep: with more tiles in flight, for devices of 160 KB of shared memory a block and more.
absl::Status PreparePortableDecode(int32_t head_dim, int32_t group, bool deep);
void LaunchPortableDecode(int32_t head_dim, bool deep, const DecodeParams& params,
                          const LaunchOptions& options);

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_ATTENTION_DECODE_PARAMS_H_
