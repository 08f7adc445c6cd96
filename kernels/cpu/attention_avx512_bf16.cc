// Kernels, CPU backend: attention by dot products of bf16 pairs (AVX-512 BF16, bf16 pages), for
// processors that have them and no tiles, or whose tiles are slower. Built with those instructions.
//
// Pages hold keys and values in pairs already, so their vectors are operands as they lie; queries
// and weights are rounded to bf16. Up to six rows at a time meet a page: 6 x 64 scores, and then
// 6 x 64 dimensions of sums, fill the registers.
//
// Weights are 2^(score - maximum) with the maximum that the row had before: right as long as no sum
// of weights grows too large, which a check after the fact shows. Only then, and in a row's first
// page, is the maximum of the scores taken.
//
// What is used next is fetched meanwhile: the page's values while its keys are used, then the next
// page's keys. A few rows of wide heads are bound by that, and their keys and values would fill the
// first-level cache from both ends, in tiles 4 KiB apart: they fetch half as far ahead, and use and
// fetch in the order in which keys and values lie.

#include <cstdint>
#include <cstring>
#include <immintrin.h>

#include "kernels/cpu/attention_bf16.h"
#include "kernels/cpu/attention_task.h"
#include "kernels/cpu/attention_visibility.h"
#include "kernels/cpu/page_layout.h"

namespace swaa::kernels::cpu {
namespace {

constexpr int kRows = 6;
constexpr int kVectors = kPageTokens / 16;
// Queries and sums of a task stay in the second-level cache beside a page.
constexpr int32_t kMaxRows = 256;
// A row's lane of weights may sum up to this before its maximum must be raised.
constexpr float kLargestSum = 1e9f;

// A task's rows.
struct Rows {
  int32_t* q;         // [rows, head_dim / 2] pairs
  float* out;         // [rows, head_dim]
  float* sum;         // [rows, 16], to be added up
  float* maximum;     // [rows], of scores in base 2
  float* scores;      // [kRows, kPageTokens]
  uint16_t* weights;  // [kRows, kPageTokens]
};

constexpr int64_t RoundUp16(int64_t n) { return (n + 15) / 16 * 16; }

int64_t WorkspaceBytes(int32_t rows, int32_t head_dim) {
  const int64_t floats = static_cast<int64_t>(rows) * head_dim * 3 / 2 + rows * 16 +
                         RoundUp16(rows) + kRows * kPageTokens * 3 / 2;
  return 4 * RoundUp16(floats);
}

Rows RowsIn(void* workspace, const AttentionTask& task) {
  const int64_t count = static_cast<int64_t>(task.queries) * task.group;
  Rows rows;
  rows.q = static_cast<int32_t*>(workspace);
  float* out = reinterpret_cast<float*>(rows.q + count * task.head_dim / 2);
  rows.sum = out + count * task.head_dim;
  rows.maximum = rows.sum + count * 16;
  rows.scores = rows.maximum + RoundUp16(count);
  rows.weights = reinterpret_cast<uint16_t*>(rows.scores + kRows * kPageTokens);
  rows.out = task.partial != nullptr ? task.partial : out;
  return rows;
}

void PackRows(const AttentionTask& task, const Rows& rows) {
  const int32_t count = task.queries * task.group;
  for (int32_t row = 0; row < count; ++row) {
    const float* q = task.q + row / task.group * task.q_stride + row % task.group * task.head_dim;
    int32_t* pairs = rows.q + row * task.head_dim / 2;
    for (int32_t d = 0; d < task.head_dim; d += 32) {
      _mm512_storeu_si512(pairs + d / 2,
                          RoundToBf16(_mm512_loadu_ps(q + d), _mm512_loadu_ps(q + d + 16)));
    }
    rows.maximum[row] = kNoMaximum;
  }
  memset(rows.out, 0, sizeof(float) * count * task.head_dim);
  memset(rows.sum, 0, sizeof(float) * count * 16);
}

// Fetches ahead to the first-level cache (1), the second-level one (2), or not at all (0).
template <int kLevel>
inline __attribute__((always_inline)) void Prefetch(const void* address) {
  if constexpr (kLevel == 1) __builtin_prefetch(address, 0, 3);
  if constexpr (kLevel == 2) __builtin_prefetch(address, 0, 1);
}

inline __attribute__((always_inline)) __m512bh BroadcastPair(const void* pair) {
  int32_t both;
  memcpy(&both, pair, sizeof(both));
  return (__m512bh)_mm512_set1_epi32(both);
}

inline __attribute__((always_inline)) __m512bh LoadPairs(const uint16_t* pairs) {
  return (__m512bh)_mm512_loadu_si512(pairs);
}

// Where to fetch: line v of step i lies at from + v * vector + i * step, in elements.
struct Ahead {
  const uint16_t* from;
  int64_t vector;
  int64_t step;

  template <int kLevel>
  inline __attribute__((always_inline)) void Fetch(int v, int64_t i) const {
    Prefetch<kLevel>(from + v * vector + i * step);
  }
};

// A vector of 16 pairs: a cache line.
constexpr int64_t kLine = 32;
constexpr int32_t kNarrowHeadDim = 64;
constexpr int32_t kFewRows = 16;

// V lines a step, one after another.
template <int V>
Ahead InOrder(const uint16_t* from) {
  return {from, kLine, V * kLine};
}

// scores[r, key] = q[r, :] . keys[:, key], V tiles of keys at a time.
template <int R, int V, int kLevel>
void ScorePage(const int32_t* q, const Page& page, int32_t head_dim, float* scores) {
  const int64_t tile = head_dim * kKeyTile;
#pragma GCC unroll 1
  for (int first = 0; first < kVectors; first += V) {
    const uint16_t* keys = page.keys + first * tile;
    const Ahead ahead = V == kVectors ? Ahead{page.values, tile, 2 * kKeyTile}
                                      : InOrder<V>(first == 0 ? keys + V * tile : page.values);
    __m512 sums[R][V];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sums[r][v] = _mm512_setzero_ps();
    }
    for (int32_t pair = 0; pair < head_dim / 2; ++pair) {
      __m512bh key[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        key[v] = LoadPairs(keys + v * tile + pair * 2 * kKeyTile);
        ahead.Fetch<kLevel>(v, pair);
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const __m512bh x = BroadcastPair(q + r * head_dim / 2 + pair);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sums[r][v] = _mm512_dpbf16_ps(sums[r][v], key[v], x);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        _mm512_store_ps(scores + r * kPageTokens + (first + v) * 16, sums[r][v]);
      }
    }
  }
}

// out[r, dim .. dim + 16 V - 1] += weights[r, :] . values, over keys first .. last - 1.
template <int R, int V, int kLevel, bool kHalves>
inline __attribute__((always_inline)) void AddValuesAt(const uint16_t* weights, const Page& page,
                                                       int32_t head_dim, int32_t dim, int32_t first,
                                                       int32_t last, float* out) {
  __m512 sums[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sums[r][v] = _mm512_loadu_ps(out + r * head_dim + dim + v * 16);
  }
#pragma GCC unroll 1
  for (int32_t unit = first; unit < last; unit += kValueTile) {
    const int64_t begin = unit * head_dim + dim * kValueTile;
    const uint16_t* values = page.values + begin;
    const uint16_t* half = unit == 0 ? page.values + kValueTile * head_dim : page.next_keys;
    const Ahead ahead = kHalves ? InOrder<V>(half + dim * kValueTile)
                                : Ahead{page.next_keys + begin, 16 * kValueTile, kLine};
#pragma GCC unroll 1
    for (int32_t key = 0; key < kValueTile; key += 2) {
      __m512bh value[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        value[v] = LoadPairs(values + v * 16 * kValueTile + key * 16);
        ahead.Fetch<kLevel>(v, key / 2);
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const __m512bh x = BroadcastPair(weights + r * kPageTokens + unit + key);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sums[r][v] = _mm512_dpbf16_ps(sums[r][v], value[v], x);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) _mm512_storeu_ps(out + r * head_dim + dim + v * 16, sums[r][v]);
  }
}

template <int R, int kLevel, bool kHalves>
void AddValues(const uint16_t* weights, const Page& page, int32_t head_dim, float* out) {
  constexpr int32_t kKeys = kHalves ? kValueTile : kPageTokens;
  for (int32_t first = 0; first < kPageTokens; first += kKeys) {
    int32_t d = 0;
    for (; d + 64 <= head_dim; d += 64) {
      AddValuesAt<R, 4, kLevel, kHalves>(weights, page, head_dim, d, first, first + kKeys, out);
    }
    if (d < head_dim) {
      AddValuesAt<R, 2, kLevel, kHalves>(weights, page, head_dim, d, first, first + kKeys, out);
    }
  }
}

// Weights of R rows that see the whole page, with the maxima as they are; false if some are too
// old, or none yet.
template <int R>
bool WeighWithOldMaxima(const AttentionTask& task, const Rows& rows, int32_t first_row) {
  const __m512 scale = _mm512_set1_ps(task.scale_log2);
  __m512 sums[R];
  __m512 largest = _mm512_setzero_ps();
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const float* scores = rows.scores + r * kPageTokens;
    const __m512 maximum = _mm512_set1_ps(rows.maximum[first_row + r]);
    __m512 x[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      x[v] = Exp2(_mm512_fmsub_ps(_mm512_load_ps(scores + v * 16), scale, maximum));
    }
    const __m512 total = _mm512_add_ps(_mm512_add_ps(x[0], x[1]), _mm512_add_ps(x[2], x[3]));
    sums[r] = _mm512_add_ps(_mm512_load_ps(rows.sum + (first_row + r) * 16), total);
    largest = _mm512_max_ps(sums[r], largest);
    uint16_t* weights = rows.weights + r * kPageTokens;
    _mm512_store_si512(weights, RoundToBf16(x[0], x[1]));
    _mm512_store_si512(weights + 32, RoundToBf16(x[2], x[3]));
  }
  if (_mm512_cmp_ps_mask(largest, _mm512_set1_ps(kLargestSum), _CMP_NLE_UQ) != 0) return false;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) _mm512_store_ps(rows.sum + (first_row + r) * 16, sums[r]);
  return true;
}

void WeighWithNewMaxima(const AttentionTask& task, const Rows& rows, int32_t first_row,
                        int32_t count, int32_t first_key, bool all) {
  for (int32_t r = 0; r < count; ++r) {
    const int32_t row = first_row + r;
    const int32_t position = task.first_position + row / task.group;
    WeighPage(task, all ? ~uint64_t{0} : PageMask(task, position, first_key),
              rows.scores + r * kPageTokens,
              {rows.out + row * task.head_dim, rows.sum + row * 16, rows.maximum + row},
              rows.weights + r * kPageTokens);
  }
}

template <int R, int kLevel, bool kHalves>
void AttendRows(const AttentionTask& task, const Rows& rows, const Page& page, int32_t first_row,
                bool all) {
  const int32_t head_dim = task.head_dim;
  ScorePage<R, kHalves ? 2 : kVectors, kLevel>(rows.q + first_row * head_dim / 2, page, head_dim,
                                               rows.scores);
  if (!all || !WeighWithOldMaxima<R>(task, rows, first_row)) {
    WeighWithNewMaxima(task, rows, first_row, R, page.first_key, all);
  }
  AddValues<R, kLevel, kHalves>(rows.weights, page, head_dim, rows.out + first_row * head_dim);
}

template <int kLevel, bool kHalves>
void AttendRows(int32_t count, const AttentionTask& task, const Rows& rows, const Page& page,
                int32_t first_row, bool all) {
  static_assert(kRows == 6);
  switch (count) {
    case 1:
      return AttendRows<1, kLevel, kHalves>(task, rows, page, first_row, all);
    case 2:
      return AttendRows<2, kLevel, kHalves>(task, rows, page, first_row, all);
    case 3:
      return AttendRows<3, kLevel, kHalves>(task, rows, page, first_row, all);
    case 4:
      return AttendRows<4, kLevel, kHalves>(task, rows, page, first_row, all);
    case 5:
      return AttendRows<5, kLevel, kHalves>(task, rows, page, first_row, all);
    default:
      return AttendRows<6, kLevel, kHalves>(task, rows, page, first_row, all);
  }
}

// Rows first .. last - 1, in blocks of at most `step`. The first ones fetch what comes next.
template <int kLevel, bool kHalves>
void VisitPage(const AttentionTask& task, const Rows& rows, const Page& page, int32_t first,
               int32_t last, int32_t step) {
  bool fetched = false;
  for (int32_t row = first; row < last; row += step) {
    const int32_t block = row + step <= last ? step : last - row;
    const Visibility visibility =
        Classify(task, task.first_position + row / task.group,
                 task.first_position + (row + block - 1) / task.group, page.first_key, kPageTokens);
    if (visibility == Visibility::kNone) continue;
    const bool all = visibility == Visibility::kAll;
    if (fetched) {
      AttendRows<0, kHalves>(block, task, rows, page, row, all);
    } else {
      AttendRows<kLevel, kHalves>(block, task, rows, page, row, all);
    }
    fetched = true;
  }
}

template <int kLevel, bool kHalves>
void VisitPages(const AttentionTask& task, const Rows& rows) {
  const int32_t count = task.queries * task.group / task.kv_heads;  // of a head
  const int32_t blocks = (count + kRows - 1) / kRows;
  const int32_t step = (count + blocks - 1) / blocks;  // blocks of like size
  for (int32_t visit = task.visit_begin; visit < task.visit_end; ++visit) {
    for (int32_t head = 0; head < task.kv_heads; ++head) {
      VisitPage<kLevel, kHalves>(task, rows, PageAt(task, visit, head), head * count,
                                 (head + 1) * count, step);
    }
  }
}

template <int kLevel>
void RunTask(const AttentionTask& task, void* workspace) {
  const Rows rows = RowsIn(workspace, task);
  PackRows(task, rows);
  const int32_t rows_of_head = task.queries * task.group / task.kv_heads;
  if (task.head_dim > kNarrowHeadDim && rows_of_head <= kFewRows) {
    VisitPages<kLevel, true>(task, rows);
  } else {
    VisitPages<kLevel, false>(task, rows);
  }
  WriteSums(task, {rows.out, rows.sum, rows.maximum});
}

}  // namespace

const AttentionVariant kDotProductBf16Pages[2] = {
    {"avx512_bf16/l1", kMaxRows, WorkspaceBytes, RunTask<1>, true},
    {"avx512_bf16/l2", kMaxRows, WorkspaceBytes, RunTask<2>, true}};

}  // namespace swaa::kernels::cpu
