// Kernels, CPU backend: what the kernels for bf16 pages share, by tiles (AMX) and by dot products
// (AVX-512). Queries and weights are rounded to bf16 in both. In an unnamed namespace, as they are
// built for newer processors than the rest of the program.

#ifndef SWAA_KERNELS_CPU_ATTENTION_BF16_H_
#define SWAA_KERNELS_CPU_ATTENTION_BF16_H_

#include <cstdint>
#include <immintrin.h>

#include "kernels/cpu/attention_task.h"
#include "kernels/cpu/attention_visibility.h"
#include "kernels/types.h"

namespace swaa::kernels::cpu {
namespace {

// A row's maximum is raised only when a score exceeds it by this power of two.
constexpr float kMaximumSlack = 8;

// 2^x for x below 128, 9e-5 relative: finer than the bf16 that it becomes. Underflow gives 0.
[[maybe_unused]] inline __m512 Exp2(__m512 x) {
  const __m512 fraction = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  __m512 p = _mm512_fmadd_ps(fraction, _mm512_set1_ps(0.077067042f), _mm512_set1_ps(0.22764499f));
  p = _mm512_fmadd_ps(p, fraction, _mm512_set1_ps(0.69511679f));
  p = _mm512_fmadd_ps(p, fraction, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, x);
}

// 2^(old - now) for maxima, of which old may be kNoMaximum.
[[maybe_unused]] inline __m512 RescaleFactor(__m512 old_maximum, __m512 maximum) {
  return Exp2(_mm512_max_ps(_mm512_sub_ps(old_maximum, maximum), _mm512_set1_ps(-200.0f)));
}

[[maybe_unused]] inline __m512i RoundToBf16(__m512 low, __m512 high) {
  return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

// Writes head_dim values, given 16 at a time by load(d), times `factor` as row `row` of the output.
template <class Load>
inline __attribute__((always_inline)) void WriteOutputRow(const AttentionTask& task, int32_t row,
                                                          float factor, const Load& load) {
  const int64_t begin = row / task.group * task.out_stride + row % task.group * task.head_dim;
  const __m512 scale = _mm512_set1_ps(factor);
  for (int32_t d = 0; d < task.head_dim; d += 32) {
    const __m512 low = _mm512_mul_ps(scale, load(d));
    const __m512 high = _mm512_mul_ps(scale, load(d + 16));
    if (task.out_is_bf16) {
      _mm512_storeu_si512(static_cast<uint16_t*>(task.out) + begin + d, RoundToBf16(low, high));
    } else {
      _mm512_storeu_ps(static_cast<float*>(task.out) + begin + d, low);
      _mm512_storeu_ps(static_cast<float*>(task.out) + begin + d + 16, high);
    }
  }
}

// One head's keys and values of a page, and what comes next.
struct Page {
  const uint16_t* keys;
  const uint16_t* values;
  const uint16_t* next_keys;  // of the next head, or of the first one on the page that comes next
  int32_t first_key;
};

// Of KV head `head` of the task.
[[maybe_unused]] inline Page PageAt(const AttentionTask& task, int32_t visit, int32_t head = 0) {
  const int32_t page = VisitedPage(task, visit);
  const int32_t next_visit = visit + 1 < task.visit_end ? visit + 1 : visit;
  const std::byte* next = PageAddress(task, VisitedPage(task, next_visit));
  const std::byte* address = PageAddress(task, page);
  const int64_t block = kPageTokens * task.head_dim;
  const auto* keys = reinterpret_cast<const uint16_t*>(address + task.key_offset) + head * block;
  const auto* values =
      reinterpret_cast<const uint16_t*>(address + task.value_offset) + head * block;
  const auto* next_keys = reinterpret_cast<const uint16_t*>(next + task.key_offset);
  return {keys, values, head + 1 < task.kv_heads ? keys + block : next_keys, page * kPageTokens};
}

// What a row has summed up.
struct RowSums {
  float* out;      // [head_dim]
  float* sum;      // [16], to be added up
  float* maximum;  // of scores in base 2
};

// Writes what a task's rows, one after another in `rows`, have summed up: as output, or as its
// partial result, whose sums lie there already.
[[maybe_unused]] inline void WriteSums(const AttentionTask& task, const RowSums& rows) {
  const int32_t count = task.queries * task.group;
  float* maxima = task.partial == nullptr ? nullptr : task.partial + count * task.head_dim;
  for (int32_t row = 0; row < count; ++row) {
    const float sum = _mm512_reduce_add_ps(_mm512_load_ps(rows.sum + row * 16));
    if (maxima != nullptr) {
      maxima[row] = rows.maximum[row];
      maxima[count + row] = sum;
    } else {
      const float* out = rows.out + row * task.head_dim;
      WriteOutputRow(task, row, 1 / sum, [out](int32_t d) { return _mm512_loadu_ps(out + d); });
    }
  }
}

// Scales what a row has summed up from its maximum to a higher one.
[[maybe_unused]] inline void RaiseMaximum(const RowSums& row, float maximum, int32_t head_dim) {
  const __m512 factor = RescaleFactor(_mm512_set1_ps(*row.maximum), _mm512_set1_ps(maximum));
  *row.maximum = maximum;
  _mm512_store_ps(row.sum, _mm512_mul_ps(factor, _mm512_load_ps(row.sum)));
  for (int32_t d = 0; d < head_dim; d += 16) {
    _mm512_storeu_ps(row.out + d, _mm512_mul_ps(factor, _mm512_loadu_ps(row.out + d)));
  }
}

// Bit k: the query at `position` sees key first_key + k.
[[maybe_unused]] inline uint64_t PageMask(const AttentionTask& task, int32_t position,
                                          int32_t first_key) {
  const auto low_bits = [](int32_t n) {
    return n <= 0 ? 0 : n >= 64 ? ~uint64_t{0} : (uint64_t{1} << n) - 1;
  };
  const int32_t past = position + 1 - first_key;
  return low_bits(past) & (low_bits(task.sinks - first_key) | ~low_bits(past - task.window));
}

// Turns a row's scores [kPageTokens] of one page into weights, and adds them to its sum. Bit k of
// the mask: it sees key k.
[[maybe_unused]] inline void WeighPage(const AttentionTask& task, uint64_t mask,
                                       const float* scores, const RowSums& row, uint16_t* weights) {
  constexpr int kVectors = kPageTokens / 16;
  __m512 x[kVectors];
  __m512 top = _mm512_set1_ps(-__builtin_inff());
  for (int i = 0; i < kVectors; ++i) {
    x[i] = _mm512_load_ps(scores + i * 16);
    top = _mm512_mask_max_ps(top, static_cast<__mmask16>(mask >> (16 * i)), top, x[i]);
  }
  const float page_maximum = _mm512_reduce_max_ps(top) * task.scale_log2;
  if (page_maximum > *row.maximum + kMaximumSlack) RaiseMaximum(row, page_maximum, task.head_dim);
  const __m512 scale = _mm512_set1_ps(task.scale_log2);
  const __m512 maximum = _mm512_set1_ps(*row.maximum);
  for (int i = 0; i < kVectors; ++i) {
    x[i] = _mm512_maskz_mov_ps(static_cast<__mmask16>(mask >> (16 * i)),
                               Exp2(_mm512_fmsub_ps(x[i], scale, maximum)));
  }
  const __m512 total = _mm512_add_ps(_mm512_add_ps(x[0], x[1]), _mm512_add_ps(x[2], x[3]));
  _mm512_store_ps(row.sum, _mm512_add_ps(_mm512_load_ps(row.sum), total));
  _mm512_store_si512(weights, RoundToBf16(x[0], x[1]));
  _mm512_store_si512(weights + 32, RoundToBf16(x[2], x[3]));
}

}  // namespace
}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_ATTENTION_BF16_H_
