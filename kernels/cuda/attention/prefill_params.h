// Attention on CUDA: what a prefill launch gives its kernel, of either family.

#ifndef SWAA_KERNELS_CUDA_ATTENTION_PREFILL_PARAMS_H_
#define SWAA_KERNELS_CUDA_ATTENTION_PREFILL_PARAMS_H_

#include <cstdint>
#include <cuda_runtime_api.h>

#include "absl/status/status.h"
#include "kernels/cuda/attention/plan_format.h"
#include "kernels/cuda/attention/tensor_maps.h"
#include "kernels/types.h"

namespace swaa::kernels::cuda {

struct PrefillParams {
  const Bf16* q = nullptr;           // [rows, q_stride]; heads first
  const Bf16* pool = nullptr;        // pages [K|V][kv_head][64 positions][head_dim]
  Bf16* out = nullptr;               // [rows, heads, head_dim]
  const QueryTile* tiles = nullptr;  // device, longest first
  const int32_t* table = nullptr;    // page table, from this layer on
  int64_t slot_stride = 0;           // entries from a slot to the next
  int64_t q_stride = 0;              // elements from a row of q to the next
  int* counter = nullptr;            // of drawn items; zero between launches
  float* partials = nullptr;         // results of parts
  uint32_t* arrivals = nullptr;      // zero between launches
  int32_t item_count = 0;            // tiles * heads
  int32_t max_pages = 0;
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t group = 0;     // heads / kv_heads
  float scale_log2 = 0;  // scale * log2(e)
};

// Tile sizes of a family at a head dimension, and what its parts leave in the workspace.
struct PrefillGeometry {
  int32_t query_rows = 0;
  int32_t key_rows = 0;
  int32_t result_floats = 0;   // of one part and head
  int32_t arrival_counts = 0;  // of one split tile and head
};

struct LaunchOptions {
  cudaStream_t stream = nullptr;
  int32_t blocks = 0;      // resident at a time
  bool dependent = false;  // may start under the tail of the kernel before
};

// head_dim is 64, 96 or 128. Prepare once before the first launch: fails when the device has no
// such kernel or too little shared memory.
PrefillGeometry HopperPrefillGeometry(int32_t head_dim);
absl::Status PrepareHopperPrefill(int32_t head_dim);
void LaunchHopperPrefill(int32_t head_dim, const PrefillParams& params, const TensorMap& queries,
                         const PoolMaps& pool, const LaunchOptions& options);

PrefillGeometry PortablePrefillGeometry(int32_t head_dim);
absl::Status PreparePortablePrefill(int32_t head_dim);
void LaunchPortablePrefill(int32_t head_dim, const PrefillParams& params,
                           const LaunchOptions& options);

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_ATTENTION_PREFILL_PARAMS_H_
