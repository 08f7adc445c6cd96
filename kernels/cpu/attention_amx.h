// Kernels, CPU backend: what the two AMX kernels share. In an unnamed namespace, as they are built
// for newer processors than the rest of the program.

#ifndef SWAA_KERNELS_CPU_ATTENTION_AMX_H_
#define SWAA_KERNELS_CPU_ATTENTION_AMX_H_

#include <cstdint>
#include <immintrin.h>

#include "kernels/cpu/amx_tile.h"
#include "kernels/cpu/attention_bf16.h"
#include "kernels/cpu/attention_task.h"

namespace swaa::kernels::cpu {

// Tasks of up to 16 rows: one tile of rows, bound by the reading of pages.
void RunAmxDecode(const AttentionTask& task, void* workspace);
int64_t AmxDecodeWorkspaceBytes(int32_t head_dim);

namespace {

// Keys whose weights make one tile row.
constexpr int kUnitKeys = 32;

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

}  // namespace
}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_ATTENTION_AMX_H_
