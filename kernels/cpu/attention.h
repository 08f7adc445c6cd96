// Attention over pages on the CPU, and the writing of keys and values into them. Every instruction
// set has its own variant; all read the same page layout.
//
// A bf16 page holds, per KV head, K as [key/16][head_dim/2][16 keys][2] and V as
// [key/32][head_dim/16][16 key pairs][16 dims][2], so that every AMX operand is a contiguous
// kilobyte; the order inside a page is [K|V][kv_head]. head_dim is a multiple of 32.

#ifndef SWAA_KERNELS_CPU_ATTENTION_H_
#define SWAA_KERNELS_CPU_ATTENTION_H_

#include <cstdint>

#include "kernels/cpu/attention_choice.h"
#include "kernels/cpu/instruction_set.h"
#include "kernels/types.h"

namespace swaa::kernels::cpu {

struct AttentionPlan;  // attention_plan.h

// What all layers of a model have in common.
struct AttentionShape {
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int64_t q_stride = 0;  // elements from a row of q to the next
  float scale = 0;
};

// One layer.
struct AttentionParams {
  const float* q = nullptr;  // row r at q + r * q_stride: [heads, head_dim]
  void* out = nullptr;       // [rows, heads * head_dim]
  PageTableView page_table;
  PagePoolView pages;
  int32_t layer = 0;
};

struct CpuAttentionOptions {
  InstructionSet instruction_set = InstructionSet::kGeneric;
  DataType kv = DataType::kBf16;   // of the pages
  DataType out = DataType::kBf16;  // of AttentionParams::out
  int32_t threads = 1;             // OpenMP threads
  AttentionKernels kernels{};      // of Attention
};

int64_t KvPageBytes(DataType kv, int32_t kv_heads, int32_t head_dim);

// Softmax attention of all rows of all sequences of the plan, parallel over (KV head, rows) and,
// where there are few rows, over keys. `options` are those of the plan. Enters a parallel region:
// call from the device thread only.
void Attention(const AttentionPlan& plan, const AttentionParams& params,
               const CpuAttentionOptions& options);

// Where StoreKeyValue writes one row of one sequence.
struct KeyValueRow {
  const float* k = nullptr;  // [kv_heads, head_dim]
  const float* v = nullptr;
  std::byte* page = nullptr;
  int32_t offset = 0;  // position % kPageTokens
};

// Writes K and V of `count` rows (each to its own place). Called inside a parallel region: serial,
// any thread; rows of one page may be written by several threads at once.
void StoreKeyValue(const KeyValueRow* rows, int64_t count, int32_t kv_heads, int32_t head_dim,
                   const CpuAttentionOptions& options);

}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_ATTENTION_H_
