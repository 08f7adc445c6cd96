// Skinny products with affine-quantised weights for AVX-512. Levels are widened to f32 in
// registers: on the processors that have them, bf16 dot products are no faster than f32 ones, which
// need no second piece for levels of 8 bits. Compiled with those instructions: nothing here may use
// inline code of a shared header.

#include <immintrin.h>

#include "kernels/cpu/skinny_affine_product.h"
#include "kernels/cpu/skinny_store.h"

namespace swaa::kernels::cpu {
namespace {

#define SWAA_INLINE inline __attribute__((always_inline))

// Bytes ahead of the read position that are fetched: the hardware's own prefetch stops at 4 KiB
// borders.
constexpr int64_t kPrefetchBytes = 4096;
constexpr int64_t kLineBytes = 64;
constexpr int64_t kHeadBytes = 2 * kAffineColumns * sizeof(float);  // min and step of a record

// sums[r] += levels of eight inputs * x of the same.
template <int rows>
SWAA_INLINE void AddNibbles(const std::byte* levels, const float* x, int64_t x_stride,
                            __m512 (&sums)[rows]) {
  const __m512 values = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  __m512i words = _mm512_load_si512(levels);
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    // The four lowest bits choose.
    const __m512 level =
        _mm512_permutexvar_ps(i == 0 ? words : _mm512_srli_epi32(words, 4 * i), values);
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
      sums[r] = _mm512_fmadd_ps(level, _mm512_set1_ps(x[r * x_stride + i]), sums[r]);
    }
  }
}

// sums[r] += levels of one input * x of the same.
template <int rows>
SWAA_INLINE void AddBytes(const std::byte* levels, const float* x, int64_t x_stride,
                          __m512 (&sums)[rows]) {
  const __m128i bytes = _mm_load_si128(reinterpret_cast<const __m128i*>(levels));
  const __m512 level = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r) {
    sums[r] = _mm512_fmadd_ps(level, _mm512_set1_ps(x[r * x_stride]), sums[r]);
  }
}

// All groups of 16 columns, whose records begin at `record`.
template <int bits, int inputs, int rows>
void Columns(const SkinnyAffineProduct& p, const std::byte* record, int64_t column) {
  constexpr int64_t record_bytes = kHeadBytes + inputs * bits / 8 * kAffineColumns;
  const int64_t x_stride = p.groups * inputs;
  __m512 totals[rows];
  for (int r = 0; r < rows; ++r) totals[r] = _mm512_setzero_ps();
  for (int64_t group = 0; group < p.groups; ++group, record += record_bytes) {
    for (int64_t byte = 0; byte < record_bytes; byte += kLineBytes) {
      _mm_prefetch(reinterpret_cast<const char*>(record) + byte + kPrefetchBytes, _MM_HINT_T0);
    }
    const __m512 min = _mm512_load_ps(record);
    const __m512 step = _mm512_load_ps(record + kHeadBytes / 2);
    const std::byte* levels = record + kHeadBytes;
    const float* x = p.x + group * inputs;
    __m512 sums[rows];
    for (int r = 0; r < rows; ++r) sums[r] = _mm512_setzero_ps();
    if constexpr (bits == 4) {
#pragma GCC unroll 4
      for (int i = 0; i < inputs; i += 8) {
        AddNibbles<rows>(levels + i / 8 * kLineBytes, x + i, x_stride, sums);
      }
    } else {
#pragma GCC unroll 8
      for (int i = 0; i < inputs; ++i) {
        AddBytes<rows>(levels + i * kAffineColumns, x + i, x_stride, sums);
      }
    }
    for (int r = 0; r < rows; ++r) {
      const __m512 x_sum = _mm512_set1_ps(p.x_sums[r * p.groups + group]);
      totals[r] = _mm512_fmadd_ps(step, sums[r], _mm512_fmadd_ps(min, x_sum, totals[r]));
    }
  }
  for (int r = 0; r < rows; ++r) StoreSums(p.out, r, column, totals[r]);
}

using ColumnsFunction = void (*)(const SkinnyAffineProduct&, const std::byte*, int64_t);

template <int bits, int inputs>
ColumnsFunction ForRows(int64_t rows) {
  static constexpr ColumnsFunction kFunctions[kMaxSkinnyAffineRows] = {
      Columns<bits, inputs, 1>, Columns<bits, inputs, 2>, Columns<bits, inputs, 3>,
      Columns<bits, inputs, 4>, Columns<bits, inputs, 5>, Columns<bits, inputs, 6>,
      Columns<bits, inputs, 7>, Columns<bits, inputs, 8>};
  return kFunctions[rows - 1];
}

}  // namespace

void WidenActivations(const AffineFormat& format, const Bf16* x, int64_t rows, int64_t in_features,
                      float* x_out, float* x_sums) {
  const int64_t inputs = format.group_inputs;
  for (int64_t r = 0; r < rows; ++r, x += in_features) {
    for (int64_t first = 0; first < in_features; first += inputs) {
      __m512 sum = _mm512_setzero_ps();
      for (int64_t i = first; i < first + inputs; i += 16, x_out += 16) {
        const int64_t left = in_features - i;
        const __mmask16 mask = left >= 16 ? 0xffff
                               : left > 0 ? static_cast<__mmask16>((1u << left) - 1)
                                          : 0;
        const __m256i narrow = _mm256_maskz_loadu_epi16(mask, x + i);
        const __m512 wide = (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow), 16);
        _mm512_storeu_ps(x_out, wide);
        sum = _mm512_add_ps(sum, wide);
      }
      *x_sums++ = _mm512_reduce_add_ps(sum);
    }
  }
}

void ComputeSkinnyAffineProduct(const SkinnyAffineProduct& p, int64_t first_group,
                                int64_t last_group) {
  const ColumnsFunction columns = p.format.level_bits == 4      ? ForRows<4, 32>(p.rows)
                                  : p.format.group_inputs == 32 ? ForRows<8, 32>(p.rows)
                                                                : ForRows<8, 16>(p.rows);
  const int64_t heads = kHeadBytes;
  const int64_t levels = p.format.group_inputs * p.format.level_bits / 8 * kAffineColumns;
  const int64_t stride = p.groups * (heads + levels);
  for (int64_t group = first_group; group < last_group; ++group) {
    columns(p, p.records + group * stride, group * kAffineColumns);
  }
}

}  // namespace swaa::kernels::cpu
