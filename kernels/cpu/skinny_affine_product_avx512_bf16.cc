// Skinny products with affine-quantised weights for AVX-512, by dot products of bf16 pairs: levels
// up to 255 and activations are exact in bf16, so the sums are those of f32. Compiled with those
// instructions: nothing here may use inline code of a shared header.

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
// Levels 0 .. 15 as bf16, twice: the fifth bit of an index is the next level's.
alignas(64) constexpr uint16_t kNibbles[32] = {
    0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0, 0x4100, 0x4110, 0x4120,
    0x4130, 0x4140, 0x4150, 0x4160, 0x4170, 0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0,
    0x40c0, 0x40e0, 0x4100, 0x4110, 0x4120, 0x4130, 0x4140, 0x4150, 0x4160, 0x4170};

SWAA_INLINE __m512bh PairOf(const int32_t* x) { return (__m512bh)_mm512_set1_epi32(*x); }

// sums[r] += levels of eight inputs * x of the same.
template <int rows>
SWAA_INLINE void AddNibbles(const std::byte* levels, const int32_t* x, __m512 (&sums)[rows]) {
  const __m512i table = _mm512_load_si512(kNibbles);
  const __m512i words = _mm512_load_si512(levels);
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    const __m512i index = k == 0 ? words : _mm512_srli_epi16(words, 4 * k);
    const __m512bh level = (__m512bh)_mm512_permutexvar_epi16(index, table);
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) {
      sums[r] = _mm512_dpbf16_ps(sums[r], level, PairOf(x + k * rows + r));
    }
  }
}

// sums[r] += levels of two inputs * x of the same.
template <int rows>
SWAA_INLINE void AddBytes(const std::byte* levels, const int32_t* x, __m512 (&sums)[rows]) {
  const auto* bytes = reinterpret_cast<const __m128i*>(levels);
  const __m512 low = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_load_si128(bytes)));
  const __m512 high = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_load_si128(bytes + 1)));
  const __m512bh level = _mm512_cvtne2ps_pbh(high, low);
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r) sums[r] = _mm512_dpbf16_ps(sums[r], level, PairOf(x + r));
}

// Min (0) or step (1) of a record.
template <bool f16>
SWAA_INLINE __m512 Head(const std::byte* record, int which) {
  if constexpr (f16) {
    return _mm512_cvtph_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(record) + which));
  } else {
    return _mm512_load_ps(record + which * kAffineColumns * sizeof(float));
  }
}

template <int bits, int inputs, bool f16>
struct Record {
  static constexpr int64_t kHeadBytes = 2 * kAffineColumns * (f16 ? 2 : 4);
  static constexpr int64_t kBytes = kHeadBytes + inputs * bits / 8 * kAffineColumns;
};

// All groups of 16 columns, whose records begin at `record`.
template <int bits, int inputs, bool f16, int rows>
void Columns(const SkinnyAffineProduct& p, const std::byte* record, int64_t column) {
  using Layout = Record<bits, inputs, f16>;
  const int32_t* x = p.x;
  const float* x_sums = p.x_sums;
  __m512 totals[rows];
  for (int r = 0; r < rows; ++r) totals[r] = _mm512_setzero_ps();
  for (int64_t group = 0; group < p.groups; ++group, record += Layout::kBytes) {
    for (int64_t byte = 0; byte < Layout::kBytes; byte += kLineBytes) {
      _mm_prefetch(reinterpret_cast<const char*>(record) + byte + kPrefetchBytes, _MM_HINT_T0);
    }
    const std::byte* levels = record + Layout::kHeadBytes;
    __m512 sums[rows];
    for (int r = 0; r < rows; ++r) sums[r] = _mm512_setzero_ps();
    if constexpr (bits == 4) {
#pragma GCC unroll 4
      for (int i = 0; i < inputs; i += 8) {
        AddNibbles<rows>(levels + i / 8 * kLineBytes, x + i / 2 * rows, sums);
      }
    } else {
#pragma GCC unroll 4
      for (int i = 0; i < inputs; i += 2) {
        AddBytes<rows>(levels + i * kAffineColumns, x + i / 2 * rows, sums);
      }
    }
    const __m512 min = Head<f16>(record, 0), step = Head<f16>(record, 1);
    for (int r = 0; r < rows; ++r) {
      const __m512 x_sum = _mm512_set1_ps(x_sums[r]);
      totals[r] = _mm512_fmadd_ps(step, sums[r], _mm512_fmadd_ps(min, x_sum, totals[r]));
    }
    x += inputs / 2 * rows;
    x_sums += rows;
  }
  for (int r = 0; r < rows; ++r) StoreSums(p.out, r, column, totals[r]);
}

using ColumnsFunction = void (*)(const SkinnyAffineProduct&, const std::byte*, int64_t);

template <int bits, int inputs, bool f16>
void Compute(const SkinnyAffineProduct& p, int64_t first_group, int64_t last_group) {
  static constexpr ColumnsFunction kColumns[] = {
      Columns<bits, inputs, f16, 1>,  Columns<bits, inputs, f16, 2>,
      Columns<bits, inputs, f16, 3>,  Columns<bits, inputs, f16, 4>,
      Columns<bits, inputs, f16, 5>,  Columns<bits, inputs, f16, 6>,
      Columns<bits, inputs, f16, 7>,  Columns<bits, inputs, f16, 8>,
      Columns<bits, inputs, f16, 9>,  Columns<bits, inputs, f16, 10>,
      Columns<bits, inputs, f16, 11>, Columns<bits, inputs, f16, 12>,
      Columns<bits, inputs, f16, 13>, Columns<bits, inputs, f16, 14>,
      Columns<bits, inputs, f16, 15>, Columns<bits, inputs, f16, 16>};
  static_assert(kAffineRows == sizeof(kColumns) / sizeof(kColumns[0]));
  const ColumnsFunction columns = kColumns[p.rows - 1];
  for (int64_t group = first_group; group < last_group; ++group) {
    columns(p, p.records + group * p.groups * Record<bits, inputs, f16>::kBytes,
            group * kAffineColumns);
  }
}

template <bool f16>
void ComputeFormat(const SkinnyAffineProduct& p, int64_t first_group, int64_t last_group) {
  if (p.format.level_bits == 4) {
    Compute<4, 32, f16>(p, first_group, last_group);
  } else if (p.format.group_inputs == 32) {
    Compute<8, 32, f16>(p, first_group, last_group);
  } else {
    Compute<8, 16, f16>(p, first_group, last_group);
  }
}

}  // namespace

void PrepareActivations(const AffineFormat& format, const Bf16* x, int64_t rows,
                        int64_t in_features, int32_t* x_out, float* x_sums) {
  const int64_t inputs = format.group_inputs;
  for (int64_t r = 0; r < rows; ++r, x += in_features) {
    for (int64_t first = 0; first < in_features; first += inputs) {
      __m512 sum = _mm512_setzero_ps();
      for (int64_t i = first; i < first + inputs; i += 16) {
        const int64_t left = in_features - i;
        const __mmask16 mask = left >= 16 ? 0xffff
                               : left > 0 ? static_cast<__mmask16>((1u << left) - 1)
                                          : 0;
        const __m256i narrow = _mm256_maskz_loadu_epi16(mask, x + i);
        alignas(32) int32_t pairs[8];
        _mm256_store_si256(reinterpret_cast<__m256i*>(pairs), narrow);
        for (int k = 0; k < 8; ++k) x_out[(i / 2 + k) * rows + r] = pairs[k];
        sum = _mm512_add_ps(sum, (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow), 16));
      }
      x_sums[first / inputs * rows + r] = _mm512_reduce_add_ps(sum);
    }
  }
}

void ComputeSkinnyAffineProduct(const SkinnyAffineProduct& p, int64_t first_group,
                                int64_t last_group) {
  if (p.format.f16) {
    ComputeFormat<true>(p, first_group, last_group);
  } else {
    ComputeFormat<false>(p, first_group, last_group);
  }
}

}  // namespace swaa::kernels::cpu
