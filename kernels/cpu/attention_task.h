// Kernels, CPU backend: one piece of attention as the planner hands it to a variant. Variants are
// built for newer processors than the rest of the program, so this file holds plain data and no
// code that the linker could share.

#ifndef SWAA_KERNELS_CPU_ATTENTION_TASK_H_
#define SWAA_KERNELS_CPU_ATTENTION_TASK_H_

#include <cstddef>
#include <cstdint>

namespace swaa::kernels::cpu {

// Query rows of one KV head over a range of pages, or of several where there is one query. Row r is
// query token r / group and query head r % group of the KV heads; there are queries * group rows.
//
// The visits of a task are the pages that some row sees, in ascending order, sinks first:
//   visit v is page v                                     for v < sink_pages,
//   and page window_page + v - sink_pages                 otherwise.
struct AttentionTask {
  const float* q;      // row r: q + (r / group) * q_stride + (r % group) * head_dim
  int64_t q_stride;    // elements
  void* out;           // row r: element (r / group) * out_stride + (r % group) * head_dim
  int64_t out_stride;  // elements
  float* partial;      // null: rows go to out; else [rows, head_dim] sums, [rows] maxima (base 2),
                       // [rows] sums of weights
  const int32_t* pages;   // of the sequence and layer
  const std::byte* pool;  // page p begins at pool + p * page_bytes
  int64_t page_bytes;
  int64_t key_offset;  // bytes from a page's begin to the (first) head's keys
  int64_t value_offset;
  int32_t queries;
  int32_t group;     // query heads: of all KV heads of the task
  int32_t kv_heads;  // one after another; more than one only with one query, see heads_together
  int32_t head_dim;
  int32_t first_position;  // of query token 0
  int32_t window;          // at most kMaxSpan
  int32_t sinks;           // at most kMaxSpan
  int32_t sink_pages;
  int32_t window_page;
  int32_t visit_begin;  // of this task
  int32_t visit_end;
  float scale_log2;  // scale / ln 2: scores are exponents of 2
  bool out_is_bf16;
};

// Windows and sinks are cut to this, so that sums with positions fit 32 bits.
inline constexpr int32_t kMaxSpan = 1 << 30;

inline constexpr int32_t kMaxHeadDim = 256;

// A row that has seen no key yet has this maximum.
inline constexpr float kNoMaximum = -1e30f;

// A variant. Workspace is 64-byte aligned, a thread's own, and may hold anything when `run` begins.
struct AttentionVariant {
  const char* name;  // the instruction set, and the cache level that it fetches ahead to
  int32_t max_rows;  // that a task may have; tasks of one query token may have more
  int64_t (*workspace_bytes)(int32_t rows, int32_t head_dim);
  void (*run)(const AttentionTask& task, void* workspace);
  // One query's tasks may have several KV heads. Memory is read faster a page at a time than a head
  // at a time.
  bool heads_together = false;
};

// By the type of the pages. Those in twos fetch ahead to the first-level cache and to the second.
extern const AttentionVariant kGenericBf16Pages[2], kGenericF32Pages;
extern const AttentionVariant kAvx2Bf16Pages[2], kAvx2F32Pages;
extern const AttentionVariant kAvx512Bf16Pages[2], kAvx512F32Pages;
extern const AttentionVariant kDotProductBf16Pages[2];  // of instruction set avx512_bf16
extern const AttentionVariant kAmxBf16Pages;

}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_ATTENTION_TASK_H_
