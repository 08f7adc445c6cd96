// Skinny products with affine-quantised weights for AVX-512, by dot products of bf16 pairs: levels
// up to 255 and activations are exact in bf16, so the sums are those of f32. Compiled with those
// instructions: nothing here may use inline code of a shared header.

#include <cstddef>
#include <cstdint>
#include <immintrin.h>
#include <utility>

#include "kernels/cpu/skinny_affine_product.h"
#include "kernels/cpu/skinny_store.h"

namespace swaa::kernels::cpu {
namespace {

#define SWAA_INLINE inline __attribute__((always_inline))

// Bytes ahead of the read position that are fetched: the hardware's own prefetch stops at 4 KiB
// borders.
constexpr int64_t kPrefetchBytes = 4096;
constexpr int64_t kLineBytes = 64;
// A dot product's sum can be added to only some cycles later: so few rows sum up even pairs and odd
// ones apart, that enough are under way. More do not fit the registers.
constexpr int kRowsInTwoChains = 11;
// Levels 0 .. 15 as bf16, twice: the fifth bit of an index is the next level's.
alignas(64) constexpr uint16_t kNibbles[32] = {
    0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0, 0x4100, 0x4110, 0x4120,
    0x4130, 0x4140, 0x4150, 0x4160, 0x4170, 0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0,
    0x40c0, 0x40e0, 0x4100, 0x4110, 0x4120, 0x4130, 0x4140, 0x4150, 0x4160, 0x4170};

SWAA_INLINE __m512bh PairOf(const int32_t* x) { return (__m512bh)_mm512_set1_epi32(*x); }

// Levels of pair `pair` of a group's inputs.
template <int bits>
SWAA_INLINE __m512bh LevelsOf(const std::byte* levels, int pair) {
  if constexpr (bits == 4) {
    const __m512i words = _mm512_load_si512(levels + pair / 4 * kLineBytes);
    const __m512i index = pair % 4 == 0 ? words : _mm512_srli_epi16(words, 4 * (pair % 4));
    return (__m512bh)_mm512_permutexvar_epi16(index, _mm512_load_si512(kNibbles));
  } else {
    const auto* bytes = reinterpret_cast<const __m128i*>(levels + pair * 2 * kAffineColumns);
    const __m512 low = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_load_si128(bytes)));
    const __m512 high = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_load_si128(bytes + 1)));
    return _mm512_cvtne2ps_pbh(high, low);
  }
}

// sums[r] += levels of two inputs * x of the same.
template <int rows>
SWAA_INLINE void AddPair(__m512bh levels, const int32_t* x, __m512 (&sums)[rows]) {
#pragma GCC unroll 32
  for (int r = 0; r < rows; ++r) sums[r] = _mm512_dpbf16_ps(sums[r], levels, PairOf(x + r));
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

// Adds a group's part, given the sums of levels * x, to the totals.
template <int rows>
SWAA_INLINE void AddGroup(__m512 min, __m512 step, const float* x_sums, const __m512 (&sums)[rows],
                          __m512* totals) {
#pragma GCC unroll 32
  for (int r = 0; r < rows; ++r) {
    const __m512 x_sum = _mm512_set1_ps(x_sums[r]);
    totals[r] = _mm512_fmadd_ps(step, sums[r], _mm512_fmadd_ps(min, x_sum, totals[r]));
  }
}

SWAA_INLINE void FetchAhead(const std::byte* record, int64_t bytes) {
  for (int64_t byte = 0; byte < bytes; byte += kLineBytes) {
    _mm_prefetch(reinterpret_cast<const char*>(record) + byte + kPrefetchBytes, _MM_HINT_T0);
  }
}

// All groups of 16 columns, whose records begin at `record`.
template <int bits, int inputs, bool f16, int rows>
void Columns(const SkinnyAffineProduct& p, const std::byte* record, int64_t column) {
  using Layout = Record<bits, inputs, f16>;
  constexpr int kChains = rows <= kRowsInTwoChains ? 2 : 1;
  const int32_t* x = p.x;
  const float* x_sums = p.x_sums;
  __m512 totals[rows];
  for (int r = 0; r < rows; ++r) totals[r] = _mm512_setzero_ps();
  for (int64_t group = 0; group < p.groups; ++group, record += Layout::kBytes) {
    FetchAhead(record, Layout::kBytes);
    __m512 sums[kChains][rows];
#pragma GCC unroll 2
    for (int c = 0; c < kChains; ++c) {
#pragma GCC unroll 32
      for (int r = 0; r < rows; ++r) sums[c][r] = _mm512_setzero_ps();
    }
#pragma GCC unroll 32
    for (int pair = 0; pair < inputs / 2; ++pair) {
      AddPair<rows>(LevelsOf<bits>(record + Layout::kHeadBytes, pair), x + pair * rows,
                    sums[pair % kChains]);
    }
#pragma GCC unroll 2
    for (int c = 1; c < kChains; ++c) {
#pragma GCC unroll 32
      for (int r = 0; r < rows; ++r) sums[0][r] = _mm512_add_ps(sums[0][r], sums[c][r]);
    }
    AddGroup<rows>(Head<f16>(record, 0), Head<f16>(record, 1), x_sums, sums[0], totals);
    x += inputs / 2 * rows;
    x_sums += rows;
  }
  for (int r = 0; r < rows; ++r) StoreSums(p.out, r, column, totals[r]);
}

using ColumnsFunction = void (*)(const SkinnyAffineProduct&, const std::byte*, int64_t);

template <int bits, int inputs, bool f16, size_t... r>
SWAA_INLINE ColumnsFunction ColumnsFor(int64_t rows, std::index_sequence<r...>) {
  static constexpr ColumnsFunction kColumns[] = {Columns<bits, inputs, f16, r + 1>...};
  return kColumns[rows - 1];
}

template <int bits, int inputs, bool f16>
void Compute(const SkinnyAffineProduct* products, int64_t count, int64_t first_group,
             int64_t last_group) {
  for (int64_t group = first_group; group < last_group; ++group) {
    const std::byte* record =
        products->records + group * products->groups * Record<bits, inputs, f16>::kBytes;
    // Column by column: the later products find it in the cache where the first brought it.
    for (int64_t b = 0; b < count; ++b) {
      ColumnsFor<bits, inputs, f16>(products[b].rows, std::make_index_sequence<kAffineRows>())(
          products[b], record, group * kAffineColumns);
    }
  }
}

template <bool f16>
void ComputeFormat(const SkinnyAffineProduct* products, int64_t count, int64_t first_group,
                   int64_t last_group) {
  const AffineFormat& format = products->format;
  if (format.level_bits == 4) {
    Compute<4, 32, f16>(products, count, first_group, last_group);
  } else if (format.group_inputs == 32) {
    Compute<8, 32, f16>(products, count, first_group, last_group);
  } else {
    Compute<8, 16, f16>(products, count, first_group, last_group);
  }
}

// Of both halves of each pair.
SWAA_INLINE __m512 SumOfPairs(__m512i pairs) {
  const __m512 low = (__m512)_mm512_slli_epi32(pairs, 16);
  const __m512 high = (__m512)_mm512_and_si512(pairs, _mm512_set1_epi32(~0xffff));
  return _mm512_add_ps(low, high);
}

constexpr int64_t kTransposedRows = 16;

// rows[r][k] becomes rows[k][r].
SWAA_INLINE void Transpose(__m512i (&rows)[kTransposedRows]) {
  __m512i quads[kTransposedRows];
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    const __m512i a = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    const __m512i b = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    const __m512i c = _mm512_unpacklo_epi32(rows[i + 2], rows[i + 3]);
    const __m512i d = _mm512_unpackhi_epi32(rows[i + 2], rows[i + 3]);
    quads[i] = _mm512_unpacklo_epi64(a, c);
    quads[i + 1] = _mm512_unpackhi_epi64(a, c);
    quads[i + 2] = _mm512_unpacklo_epi64(b, d);
    quads[i + 3] = _mm512_unpackhi_epi64(b, d);
  }
  // Lane l of quads[4 i + k]: rows 4 i .. 4 i + 3 at 4 l + k.
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    const __m512i a = _mm512_shuffle_i32x4(quads[k], quads[4 + k], 0x44);
    const __m512i b = _mm512_shuffle_i32x4(quads[k], quads[4 + k], 0xee);
    const __m512i c = _mm512_shuffle_i32x4(quads[8 + k], quads[12 + k], 0x44);
    const __m512i d = _mm512_shuffle_i32x4(quads[8 + k], quads[12 + k], 0xee);
    rows[k] = _mm512_shuffle_i32x4(a, c, 0x88);
    rows[4 + k] = _mm512_shuffle_i32x4(a, c, 0xdd);
    rows[8 + k] = _mm512_shuffle_i32x4(b, d, 0x88);
    rows[12 + k] = _mm512_shuffle_i32x4(b, d, 0xdd);
  }
}

// A group of inputs of some rows, `stride` elements apart.
struct GroupRows {
  const Bf16* x;
  int64_t stride;
  int64_t inputs;  // what is missing to a whole group is zero
  int64_t rows;    // 1 .. kTransposedRows
};

// Its pairs to out [pairs, out_rows] and the rows' sums.
SWAA_INLINE void PrepareGroup(const GroupRows& group, int64_t pairs, int64_t out_rows, int32_t* out,
                              float* sums) {
  const auto input_mask = static_cast<__mmask32>((uint64_t{1} << group.inputs) - 1);
  if (out_rows == 1) {
    const __m512i row = _mm512_maskz_loadu_epi16(input_mask, group.x);
    _mm512_mask_storeu_epi32(out, static_cast<__mmask16>((1u << pairs) - 1), row);
    *sums = _mm512_reduce_add_ps(SumOfPairs(row));
    return;
  }
  const auto row_mask = static_cast<__mmask16>((1u << group.rows) - 1);
  __m512i rows[kTransposedRows];
  for (int64_t r = 0; r < kTransposedRows; ++r) {
    rows[r] = r < group.rows ? _mm512_maskz_loadu_epi16(input_mask, group.x + r * group.stride)
                             : _mm512_setzero_si512();
  }
  Transpose(rows);
  __m512 total = _mm512_setzero_ps();
  for (int64_t pair = 0; pair < pairs; ++pair) {
    _mm512_mask_storeu_epi32(out + pair * out_rows, row_mask, rows[pair]);
    total = _mm512_add_ps(total, SumOfPairs(rows[pair]));
  }
  _mm512_mask_storeu_ps(sums, row_mask, total);
}

}  // namespace

void PrepareActivations(const AffineFormat& format, const Bf16* x, int64_t rows,
                        int64_t in_features, int32_t* x_out, float* x_sums) {
  const int64_t inputs = format.group_inputs;
  for (int64_t first = 0; first < in_features; first += inputs) {
    const int64_t left = in_features - first;
    for (int64_t r = 0; r < rows; r += kTransposedRows) {
      PrepareGroup({.x = x + r * in_features + first,
                    .stride = in_features,
                    .inputs = left < inputs ? left : inputs,
                    .rows = rows - r < kTransposedRows ? rows - r : kTransposedRows},
                   inputs / 2, rows, x_out + r, x_sums + r);
    }
    x_out += inputs / 2 * rows;
    x_sums += rows;
  }
}

void ComputeSkinnyAffineProducts(const SkinnyAffineProduct* products, int64_t count,
                                 int64_t first_group, int64_t last_group) {
  if (products->format.f16) {
    ComputeFormat<true>(products, count, first_group, last_group);
  } else {
    ComputeFormat<false>(products, count, first_group, last_group);
  }
}

}  // namespace swaa::kernels::cpu
