// Kernels, CPU backend: attention by fused multiply-adds in f32, written once over a small `Simd`
// type.
//
// attention_generic.cc, attention_avx2.cc and attention_avx512.cc each define Simd in an unnamed
// namespace and include this file after it. Everything here is in that unnamed namespace too, and
// nothing calls an inline function of another header: each of these files is compiled for its own
// processor, and the linker must not choose its code for the rest of the program. It is one file,
// although long, so that this is easy to see.
//
// Simd has: Vec, kWidth (lanes), kRows and kVectors (a block of kRows x kVectors accumulators fits
// the registers), Load, Store, Broadcast, MulAdd (a * b + c), Mul, Add, Max, ReduceMax, ReduceSum,
// Exp2, LoadPairs (kWidth pairs of bf16, first and second of each), kNames (of its variants).
//
// Pages of bf16 have two variants: what is fetched ahead goes to the first-level cache, or to the
// second. Where K and V of a page fill the first one and their streams lie 4 KiB apart, lines that
// go there too early are gone before they are read; elsewhere they save a trip.

#ifndef SWAA_KERNELS_CPU_ATTENTION_FMA_H_
#define SWAA_KERNELS_CPU_ATTENTION_FMA_H_

#include <cstdint>
#include <cstring>

#include "kernels/cpu/attention_task.h"
#include "kernels/cpu/attention_visibility.h"
#include "kernels/cpu/page_layout.h"

namespace swaa::kernels::cpu {
namespace {

using Vec = Simd::Vec;
constexpr int kWidth = Simd::kWidth;
constexpr int kRows = Simd::kRows;

// A row's maximum is raised only when a score exceeds it by this power of two, which sums bear
// easily.
constexpr float kMaximumSlack = 8;

// One head's keys and values of one page, in f32 (page_layout.h), or in bf16 to be widened on the
// way.
struct F32Block {
  const float* keys;
  const float* values;
};
template <int kLocality>  // __builtin_prefetch's
struct Bf16Block {
  const uint16_t* keys;
  const uint16_t* values;
  // What to fetch while keys (or values) are used lies so many bytes after them: the page's values,
  // and the next page's keys.
  int64_t after_keys;
  int64_t after_values;
};

// Rows of a task, and what they have summed up.
struct RowState {
  float* q;        // [rows, head_dim]
  float* out;      // [rows, head_dim]
  float* sum;      // [rows, kWidth], to be added up
  float* maximum;  // [rows], of scores in base 2
  float* scores;   // [kRows, kPageTokens]
  float* keys;     // a page widened to f32
  float* values;
};

template <int kLocality>
inline __attribute__((always_inline)) void PrefetchAfter(const void* address, int64_t distance) {
  __builtin_prefetch(static_cast<const char*>(address) + distance, /*rw=*/0, kLocality);
}

// ---- scores[r, key] = q[r, :] . keys[:, key]

// Keys first_key .. first_key + V * kWidth - 1 for R rows.
template <int R, int V>
inline __attribute__((always_inline)) void ScoreKeys(const float* q, const F32Block& block,
                                                     int32_t head_dim, int32_t first_key,
                                                     Vec (&sums)[R][V]) {
  for (int32_t d = 0; d < head_dim; ++d) {
    Vec key[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      const int32_t k = first_key + v * kWidth;
      key[v] = Simd::Load(block.keys + (k / kKeyTile * head_dim + d) * kKeyTile + k % kKeyTile);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Vec x = Simd::Broadcast(q[r * head_dim + d]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sums[r][v] = Simd::MulAdd(x, key[v], sums[r][v]);
    }
  }
}

template <int R, int V, int L>
inline __attribute__((always_inline)) void ScoreKeys(const float* q, const Bf16Block<L>& block,
                                                     int32_t head_dim, int32_t first_key,
                                                     Vec (&sums)[R][V]) {
  for (int32_t d = 0; d < head_dim; d += 2) {
    Vec even[V], odd[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      const int32_t k = first_key + v * kWidth;
      const uint16_t* pairs =
          block.keys + (k / kKeyTile * head_dim + d) * kKeyTile + k % kKeyTile * 2;
      PrefetchAfter<L>(pairs, block.after_keys);
      Simd::LoadPairs(pairs, &even[v], &odd[v]);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Vec x = Simd::Broadcast(q[r * head_dim + d]);
      const Vec y = Simd::Broadcast(q[r * head_dim + d + 1]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        sums[r][v] = Simd::MulAdd(x, even[v], sums[r][v]);
        sums[r][v] = Simd::MulAdd(y, odd[v], sums[r][v]);
      }
    }
  }
}

template <int R, class Block>
void ScorePage(const float* q, const Block& block, int32_t head_dim, float* scores) {
  constexpr int V = Simd::kVectors;
  for (int32_t key = 0; key < kPageTokens; key += V * kWidth) {
    Vec sums[R][V];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sums[r][v] = Simd::Broadcast(0);
    }
    ScoreKeys<R, V>(q, block, head_dim, key, sums);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        Simd::Store(scores + r * kPageTokens + key + v * kWidth, sums[r][v]);
      }
    }
  }
}

// ---- out[r, :] += weights[r, key] values[key, :]

template <int R, int V>
inline __attribute__((always_inline)) void AddValues(const float* weights, const F32Block& block,
                                                     int32_t head_dim, int32_t first_dim,
                                                     Vec (&sums)[R][V]) {
  for (int32_t key = 0; key < kPageTokens; ++key) {
    Vec value[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      value[v] = Simd::Load(block.values + key * head_dim + first_dim + v * kWidth);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Vec x = Simd::Broadcast(weights[r * kPageTokens + key]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sums[r][v] = Simd::MulAdd(x, value[v], sums[r][v]);
    }
  }
}

template <int R, int V, int L>
inline __attribute__((always_inline)) void AddValues(const float* weights,
                                                     const Bf16Block<L>& block, int32_t head_dim,
                                                     int32_t first_dim, Vec (&sums)[R][V]) {
  for (int32_t key = 0; key < kPageTokens; key += 2) {
    const uint16_t* run =
        block.values + key / kValueTile * kValueTile * head_dim + key % kValueTile * 16;
    Vec even[V], odd[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      const int32_t d = first_dim + v * kWidth;
      const uint16_t* pairs = run + d / 16 * 16 * kValueTile + d % 16 * 2;
      PrefetchAfter<L>(pairs, block.after_values);
      Simd::LoadPairs(pairs, &even[v], &odd[v]);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Vec x = Simd::Broadcast(weights[r * kPageTokens + key]);
      const Vec y = Simd::Broadcast(weights[r * kPageTokens + key + 1]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        sums[r][v] = Simd::MulAdd(x, even[v], sums[r][v]);
        sums[r][v] = Simd::MulAdd(y, odd[v], sums[r][v]);
      }
    }
  }
}

template <int R, int V, class Block>
inline __attribute__((always_inline)) void AddValuesAt(const float* weights, const Block& block,
                                                       int32_t head_dim, int32_t first_dim,
                                                       float* out) {
  Vec sums[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      sums[r][v] = Simd::Load(out + r * head_dim + first_dim + v * kWidth);
    }
  }
  AddValues<R, V>(weights, block, head_dim, first_dim, sums);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      Simd::Store(out + r * head_dim + first_dim + v * kWidth, sums[r][v]);
    }
  }
}

template <int R, class Block>
void AddPageValues(const float* weights, const Block& block, int32_t head_dim, float* out) {
  constexpr int V = Simd::kVectors;
  int32_t d = 0;
  for (; d + V * kWidth <= head_dim; d += V * kWidth) {
    AddValuesAt<R, V>(weights, block, head_dim, d, out);
  }
  // head_dim is a multiple of 32, blocks may be wider.
  for (; d < head_dim; d += 2 * kWidth) AddValuesAt<R, 2>(weights, block, head_dim, d, out);
}

// ---- softmax

inline int32_t ClampToPage(int32_t key) {
  return key < 0 ? 0 : key > kPageTokens ? kPageTokens : key;
}

// Scores of keys that the query at `position` does not see become -infinity.
inline void MaskRow(const AttentionTask& task, int32_t position, int32_t first_key, float* scores) {
  const int32_t past_end = ClampToPage(position + 1 - first_key);
  const int32_t sinks_end = ClampToPage(task.sinks - first_key);
  const int32_t window_begin = ClampToPage(position - task.window + 1 - first_key);
  for (int32_t k = sinks_end; k < window_begin; ++k) scores[k] = -__builtin_inff();
  for (int32_t k = past_end; k < kPageTokens; ++k) scores[k] = -__builtin_inff();
}

// Turns a row's scores into weights and adds them to its sum; scales what it has when the maximum
// rises.
inline void SoftmaxRow(const AttentionTask& task, const RowState& state, int32_t row,
                       float* scores) {
  Vec top = Simd::Load(scores);
  for (int k = kWidth; k < kPageTokens; k += kWidth) top = Simd::Max(top, Simd::Load(scores + k));
  const float page_maximum = Simd::ReduceMax(top) * task.scale_log2;
  float* sum = state.sum + row * kWidth;
  if (page_maximum > state.maximum[row] + kMaximumSlack) {
    const Vec factor = Simd::Exp2(Simd::Broadcast(state.maximum[row] - page_maximum));
    state.maximum[row] = page_maximum;
    Simd::Store(sum, Simd::Mul(factor, Simd::Load(sum)));
    float* out = state.out + row * task.head_dim;
    for (int32_t d = 0; d < task.head_dim; d += kWidth) {
      Simd::Store(out + d, Simd::Mul(factor, Simd::Load(out + d)));
    }
  }
  const Vec scale = Simd::Broadcast(task.scale_log2);
  const Vec negative_maximum = Simd::Broadcast(-state.maximum[row]);
  Vec total = Simd::Load(sum);
  for (int k = 0; k < kPageTokens; k += kWidth) {
    const Vec weight = Simd::Exp2(Simd::MulAdd(Simd::Load(scores + k), scale, negative_maximum));
    total = Simd::Add(total, weight);
    Simd::Store(scores + k, weight);
  }
  Simd::Store(sum, total);
}

template <int R, class Block>
void AttendRows(const AttentionTask& task, const RowState& state, const Block& block,
                int32_t first_row, int32_t first_key, Visibility visibility) {
  ScorePage<R>(state.q + first_row * task.head_dim, block, task.head_dim, state.scores);
  for (int r = 0; r < R; ++r) {
    float* scores = state.scores + r * kPageTokens;
    if (visibility == Visibility::kSome) {
      MaskRow(task, task.first_position + (first_row + r) / task.group, first_key, scores);
    }
    SoftmaxRow(task, state, first_row + r, scores);
  }
  AddPageValues<R>(state.scores, block, task.head_dim, state.out + first_row * task.head_dim);
}

template <class Block>
void AttendRows(int32_t count, const AttentionTask& task, const RowState& state, const Block& block,
                int32_t first_row, int32_t first_key, Visibility visibility) {
  static_assert(kRows == 4 || kRows == 6);
  switch (count) {
    case 1:
      return AttendRows<1>(task, state, block, first_row, first_key, visibility);
    case 2:
      return AttendRows<2>(task, state, block, first_row, first_key, visibility);
    case 3:
      return AttendRows<3>(task, state, block, first_row, first_key, visibility);
    case 4:
      return AttendRows<4>(task, state, block, first_row, first_key, visibility);
    case 5:
      return AttendRows < kRows == 6 ? 5
                                     : 4 > (task, state, block, first_row, first_key, visibility);
    default:
      return AttendRows<kRows>(task, state, block, first_row, first_key, visibility);
  }
}

// ---- a task

// Blocks of rows of like size, none above kRows.
inline int32_t RowsPerBlock(int32_t rows) {
  const int32_t blocks = (rows + kRows - 1) / kRows;
  return (rows + blocks - 1) / blocks;
}

// Rows of one KV head.
inline int32_t HeadRows(const AttentionTask& task) {
  return task.queries * task.group / task.kv_heads;
}

// The rows of KV head `head`.
template <class Block>
void AttendPage(const AttentionTask& task, const RowState& state, const Block& block, int32_t page,
                int32_t head) {
  const int32_t rows = HeadRows(task), first = head * rows, last = first + rows;
  const int32_t step = RowsPerBlock(rows);
  for (int32_t row = first; row < last; row += step) {
    const int32_t count = row + step <= last ? step : last - row;
    const Visibility visibility = Classify(task, task.first_position + row / task.group,
                                           task.first_position + (row + count - 1) / task.group,
                                           page * kPageTokens, kPageTokens);
    if (visibility == Visibility::kNone) continue;
    AttendRows(count, task, state, block, row, page * kPageTokens, visibility);
  }
}

// Widens a page once where many rows use it.
template <int L>
inline F32Block Widen(const Bf16Block<L>& block, int32_t head_dim, const RowState& state) {
  for (int32_t tile = 0; tile < kPageTokens / kKeyTile; ++tile) {
    for (int32_t d = 0; d < head_dim; d += 2) {
      const int32_t begin = (tile * head_dim + d) * kKeyTile;
      for (int32_t k = 0; k < kKeyTile; k += kWidth) {
        Vec even, odd;
        PrefetchAfter<L>(block.keys + begin + k * 2, block.after_keys);
        Simd::LoadPairs(block.keys + begin + k * 2, &even, &odd);
        Simd::Store(state.keys + begin + k, even);
        Simd::Store(state.keys + begin + kKeyTile + k, odd);
      }
    }
  }
  for (int32_t key = 0; key < kPageTokens; key += 2) {
    const uint16_t* run =
        block.values + key / kValueTile * kValueTile * head_dim + key % kValueTile * 16;
    for (int32_t d = 0; d < head_dim; d += kWidth) {
      Vec even, odd;
      const uint16_t* pairs = run + d / 16 * 16 * kValueTile + d % 16 * 2;
      PrefetchAfter<L>(pairs, block.after_values);
      Simd::LoadPairs(pairs, &even, &odd);
      Simd::Store(state.values + key * head_dim + d, even);
      Simd::Store(state.values + (key + 1) * head_dim + d, odd);
    }
  }
  return {state.keys, state.values};
}

// Of KV head `head`; the next one's follow, or the first one's on the next page.
template <int L>
inline Bf16Block<L> Bf16BlockAt(const AttentionTask& task, int32_t visit, int32_t head) {
  const int32_t next_visit = visit + 1 < task.visit_end ? visit + 1 : visit;
  const int64_t bytes = 2 * kPageTokens * task.head_dim;
  const std::byte* keys =
      PageAddress(task, VisitedPage(task, visit)) + task.key_offset + head * bytes;
  const std::byte* next_keys =
      head + 1 < task.kv_heads ? keys + bytes
                               : PageAddress(task, VisitedPage(task, next_visit)) + task.key_offset;
  const std::byte* values = keys - task.key_offset + task.value_offset;
  return {reinterpret_cast<const uint16_t*>(keys), reinterpret_cast<const uint16_t*>(values),
          values - keys, next_keys - values};
}

void VisitF32Pages(const AttentionTask& task, const RowState& state) {
  for (int32_t visit = task.visit_begin; visit < task.visit_end; ++visit) {
    const int32_t page = VisitedPage(task, visit);
    for (int32_t head = 0; head < task.kv_heads; ++head) {
      const std::byte* address = PageAddress(task, page) + head * 4 * kPageTokens * task.head_dim;
      const F32Block block{reinterpret_cast<const float*>(address + task.key_offset),
                           reinterpret_cast<const float*>(address + task.value_offset)};
      AttendPage(task, state, block, page, head);
    }
  }
}

template <int L>
void VisitBf16Pages(const AttentionTask& task, const RowState& state) {
  const bool widen_once = HeadRows(task) > 2 * kRows;
  for (int32_t visit = task.visit_begin; visit < task.visit_end; ++visit) {
    const int32_t page = VisitedPage(task, visit);
    for (int32_t head = 0; head < task.kv_heads; ++head) {
      const Bf16Block<L> block = Bf16BlockAt<L>(task, visit, head);
      if (widen_once) {
        AttendPage(task, state, Widen(block, task.head_dim, state), page, head);
      } else {
        AttendPage(task, state, block, page, head);
      }
    }
  }
}

inline uint16_t RoundToBf16(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof(bits));
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline void WriteRows(const AttentionTask& task, const RowState& state) {
  for (int32_t row = 0; row < task.queries * task.group; ++row) {
    const float factor = 1 / Simd::ReduceSum(Simd::Load(state.sum + row * kWidth));
    const float* values = state.out + row * task.head_dim;
    const int64_t begin = row / task.group * task.out_stride + row % task.group * task.head_dim;
    if (task.out_is_bf16) {
      uint16_t* out = static_cast<uint16_t*>(task.out) + begin;
      for (int32_t d = 0; d < task.head_dim; ++d) out[d] = RoundToBf16(values[d] * factor);
    } else {
      float* out = static_cast<float*>(task.out) + begin;
      for (int32_t d = 0; d < task.head_dim; ++d) out[d] = values[d] * factor;
    }
  }
}

// Partial results: the sums lie in the task's partial memory already.
inline void WritePartial(const AttentionTask& task, const RowState& state) {
  const int32_t rows = task.queries * task.group;
  float* maxima = task.partial + rows * task.head_dim;
  for (int32_t row = 0; row < rows; ++row) {
    maxima[row] = state.maximum[row];
    maxima[rows + row] = Simd::ReduceSum(Simd::Load(state.sum + row * kWidth));
  }
}

constexpr int64_t RoundUp16(int64_t floats) { return (floats + 15) / 16 * 16; }

int64_t WorkspaceBytes(int32_t rows, int32_t head_dim) {
  const int64_t matrix = static_cast<int64_t>(rows) * head_dim;
  return 4 * (2 * matrix + RoundUp16(static_cast<int64_t>(rows) * kWidth) + RoundUp16(rows) +
              kRows * kPageTokens + 2 * kPageTokens * head_dim);
}

inline RowState StateIn(void* workspace, const AttentionTask& task) {
  const int64_t rows = task.queries * task.group;
  const int64_t matrix = rows * task.head_dim;
  const int64_t page = kPageTokens * task.head_dim;
  RowState state;
  state.q = static_cast<float*>(workspace);
  state.out = task.partial != nullptr ? task.partial : state.q + matrix;
  state.sum = state.q + 2 * matrix;
  state.maximum = state.sum + RoundUp16(rows * kWidth);
  state.scores = state.maximum + RoundUp16(rows);
  state.keys = state.scores + kRows * kPageTokens;
  state.values = state.keys + page;
  return state;
}

template <void (*kVisitPages)(const AttentionTask&, const RowState&)>
void RunTask(const AttentionTask& task, void* workspace) {
  const RowState state = StateIn(workspace, task);
  const int32_t rows = task.queries * task.group;
  for (int32_t row = 0; row < rows; ++row) {
    const float* q = task.q + row / task.group * task.q_stride + row % task.group * task.head_dim;
    memcpy(state.q + row * task.head_dim, q, sizeof(float) * task.head_dim);
    state.maximum[row] = kNoMaximum;
  }
  memset(state.out, 0, sizeof(float) * rows * task.head_dim);
  memset(state.sum, 0, sizeof(float) * rows * kWidth);
  kVisitPages(task, state);
  if (task.partial != nullptr) {
    WritePartial(task, state);
  } else {
    WriteRows(task, state);
  }
}

// Queries and sums of a task stay in the second-level cache beside a page.
constexpr int32_t kMaxRows = 256;
constexpr AttentionVariant kBf16Variants[2] = {
    {Simd::kNames[0], kMaxRows, WorkspaceBytes, RunTask<VisitBf16Pages<3>>, true},
    {Simd::kNames[1], kMaxRows, WorkspaceBytes, RunTask<VisitBf16Pages<1>>, true}};
constexpr AttentionVariant kF32Variant = {Simd::kNames[0], kMaxRows, WorkspaceBytes,
                                          RunTask<VisitF32Pages>, true};

}  // namespace
}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_ATTENTION_FMA_H_
