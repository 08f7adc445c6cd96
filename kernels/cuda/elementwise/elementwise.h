// The operators of the CUDA backend that are bound by memory: each activation is read and written
// once.
//
// All pointers are device memory, aligned to 16 bytes; matrices are row-major and dense. Calls only
// enqueue one kernel on launch.stream, allocate nothing, and may be captured into a graph. Every
// kernel waits for the stream's earlier kernels before it reads or writes anything
// (launch.programmatic). Rows may be padded: what is computed for a dead row is of no meaning, and
// no dead row touches a page. A failed launch throws CudaError; sizes that a kernel does not do
// are broken invariants (CHECK).

#ifndef SWAA_KERNELS_CUDA_ELEMENTWISE_ELEMENTWISE_H_
#define SWAA_KERNELS_CUDA_ELEMENTWISE_ELEMENTWISE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cuda/elementwise/launch.h"
#include "kernels/types.h"

namespace swaa::kernels::cuda {

// An id that stands for the token that the row's slot drew last, which only the device knows.
inline constexpr int32_t kDrawnToken = -1;

// out[r, :] = table[ids[r], :].
struct EmbedParams {
  const int32_t* ids = nullptr;    // [rows]; kDrawnToken: drawn[slots[r]]
  const int32_t* slots = nullptr;  // [rows]; -1: a dead row
  const int32_t* drawn = nullptr;  // [slots]
  const Bf16* table = nullptr;     // [vocab, hidden]
  void* out = nullptr;             // [rows, hidden]
  DataType out_type = DataType::kBf16;
  int64_t rows = 0;
  int64_t hidden = 0;  // multiple of 8
  int64_t vocab = 0;   // an id beyond it reads row 0
};
void Embed(const EmbedParams& params, const Launch& launch);

// residual[r, :] += delta[r, :], rounded to the residual's type; then
// out[r, :] = residual[r, :] * rsqrt(mean(residual[r, :]^2) + epsilon) * weight, rounded once.
struct AddNormParams {
  void* residual = nullptr;  // [rows, hidden]
  DataType residual_type = DataType::kBf16;
  const Bf16* delta = nullptr;    // [rows, hidden] or null: nothing is added, residual is only read
  const float* weight = nullptr;  // [hidden]
  Bf16* out = nullptr;            // [rows, hidden]
  int64_t rows = 0;
  int64_t hidden = 0;  // multiple of 8, at most 16384
  float epsilon = 0;
};
void AddNorm(const AddNormParams& params, const Launch& launch);

// cos_sin[r, i] = factor * cos(positions[r] * inverse_frequencies[i]) for i < half, and
// cos_sin[r, half + i] the sine. The angle is reduced in double: an error below 1e-6 up to a
// position of 2^24.
struct RopeTableParams {
  const int32_t* positions = nullptr;          // [rows]
  const float* inverse_frequencies = nullptr;  // [half]
  float* cos_sin = nullptr;                    // [rows, 2 half]
  int64_t rows = 0;
  int64_t half = 0;
  float factor = 1;
};
void RopeTable(const RopeTableParams& params, const Launch& launch);

// Adds bias, takes the RMS norm of each head of q and k, rotates q and k (rotate-half form), and
// writes K and V to the pages; each step only where asked for. q is changed in place; of k and v
// only what is in the pages is the result.
//
// A page is [K|V][kv_head][64 positions][head_dim] of bf16.
struct RopeAndStoreParams {
  Bf16* qkv = nullptr;             // [rows, (heads + 2 kv_heads) * head_dim]: q, k, v
  const float* bias = nullptr;     // of a row of qkv, or null
  const float* cos_sin = nullptr;  // [rows, head_dim], of RopeTable
  const float* q_norm = nullptr;   // [head_dim] or null
  const float* k_norm = nullptr;
  float norm_epsilon = 0;
  const int32_t* positions = nullptr;  // [rows]
  const int32_t* slots = nullptr;      // [rows]; -1: a dead row
  PageTableView page_table;
  PagePoolView pages;
  int64_t rows = 0;
  int32_t layer = 0;
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;  // multiple of 16, at most 256
  // q is left as it is where false: of rows of which only K and V are wanted.
  bool rotate_queries = true;
};
void RopeAndStore(const RopeAndStoreParams& params, const Launch& launch);

// out[r, c] = silu(gate_up[r, c]) * gate_up[r, width + c].
struct SiluMulParams {
  const Bf16* gate_up = nullptr;  // [rows, 2 width]
  Bf16* out = nullptr;            // [rows, width]
  int64_t rows = 0;
  int64_t width = 0;  // multiple of 8
};
void SiluMul(const SiluMulParams& params, const Launch& launch);

// out row r = row indices[r] of x; rows of any type. A negative index leaves the row as it is.
struct GatherRowsParams {
  const void* x = nullptr;
  const int32_t* indices = nullptr;  // [rows]
  void* out = nullptr;
  int64_t rows = 0;
  int64_t row_bytes = 0;  // multiple of 16, of x and of out
};
void GatherRows(const GatherRowsParams& params, const Launch& launch);

// One entry of the device's page table: entries[slot, layer, block] = page.
struct alignas(16) PageTableEntry {
  int32_t slot = 0;
  int32_t layer = 0;
  int32_t block = 0;
  int32_t page = 0;
};

// Entries are set in parallel, so no two may be of the same place: of those that are,
// KeepLastOfEach keeps what setting them in order would leave.
struct SetPageTableParams {
  int32_t* entries = nullptr;  // [slots, layers, max_pages]
  int32_t num_layers = 0;
  int32_t max_pages = 0;
  const PageTableEntry* updates = nullptr;  // [capacity]
  const int32_t* count = nullptr;           // on the device, how many are live; null: all
  int64_t capacity = 0;
};
void SetPageTable(const SetPageTableParams& params, const Launch& launch);

// Copies between the device and pinned memory of the host, either way, by the multiprocessors: for
// few bytes less than the copy engine takes to begin, and whoever follows it to begin again.
struct CopyWordsParams {
  const void* from = nullptr;
  void* to = nullptr;
  int64_t bytes = 0;  // multiple of 8, as the addresses are
};
void CopyWords(const CopyWordsParams& params, const Launch& launch);

std::vector<PageTableEntry> KeepLastOfEach(std::span<const PageTableEntry> updates);

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_ELEMENTWISE_ELEMENTWISE_H_
