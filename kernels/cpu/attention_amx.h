// Kernels, CPU backend: what the two AMX kernels share. In an unnamed namespace, as they are built
// for newer processors than the rest of the program.

#ifndef SWAA_KERNELS_CPU_ATTENTION_AMX_H_
#define SWAA_KERNELS_CPU_ATTENTION_AMX_H_

#include <cstdint>
#include <immintrin.h>

#include "kernels/cpu/amx_tile.h"
#include "kernels/cpu/attention_task.h"

namespace swaa::kernels::cpu {

// Tasks of up to 16 rows: one tile of rows, bound by the reading of pages.
void RunAmxDecode(const AttentionTask& task, void* workspace);
int64_t AmxDecodeWorkspaceBytes(int32_t head_dim);

namespace {

// Keys whose weights make one tile row.
constexpr int kUnitKeys = 32;

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

// The low n bits, n clamped to 0 .. 32.
[[maybe_unused]] inline __m512i LowBits(__m512i n) {
  const __m512i one = _mm512_set1_epi32(1);
  return _mm512_sub_epi32(_mm512_sllv_epi32(one, _mm512_max_epi32(n, _mm512_setzero_si512())), one);
}

// Which of a unit's keys 16 queries see: bit k of lane r is key first_key + k of query
// positions[r].
[[maybe_unused]] inline __m512i UnitMasks(const AttentionTask& task, __m512i positions,
                                          int32_t first_key) {
  const __m512i past = _mm512_sub_epi32(positions, _mm512_set1_epi32(first_key - 1));
  const __m512i before_window = _mm512_sub_epi32(past, _mm512_set1_epi32(task.window));
  const __m512i sinks = LowBits(_mm512_set1_epi32(task.sinks - first_key));
  return _mm512_and_si512(
      LowBits(past),
      _mm512_or_si512(sinks, _mm512_andnot_si512(LowBits(before_window), _mm512_set1_epi32(-1))));
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

}  // namespace
}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_ATTENTION_AMX_H_
