// Skinny products for AVX-512 with bf16 dot products. Compiled with those instructions:
// nothing here may use inline code of a shared header.

#include <immintrin.h>

#include "kernels/cpu/skinny_bf16_product.h"
#include "kernels/cpu/skinny_store.h"

namespace swaa::kernels::cpu {
namespace {

// Bytes ahead of the read position that are fetched: the hardware's own prefetch stops at 4 KiB
// borders.
constexpr int64_t kPrefetchBytes = 4096;

// `rows` x `groups` groups of 16 columns, whose weights begin at `weight`.
template <int rows, int groups>
inline __attribute__((always_inline)) void Accumulate(const SkinnyBf16Product& p,
                                                      const Bf16* weight,
                                                      __m512 (&sums)[rows][groups]) {
  for (int r = 0; r < rows; ++r) {
    for (int g = 0; g < groups; ++g) sums[r][g] = _mm512_setzero_ps();
  }
  const int64_t pair_stride = p.column_block * 2;
  for (int64_t pair = 0; pair < p.in_pairs; ++pair) {
    __m512bh w[groups];
    for (int g = 0; g < groups; ++g) {
      const Bf16* address = weight + pair * pair_stride + g * 32;
      _mm_prefetch(reinterpret_cast<const char*>(address) + kPrefetchBytes, _MM_HINT_T0);
      w[g] = (__m512bh)_mm512_loadu_si512(address);
    }
    for (int r = 0; r < rows; ++r) {
      int32_t two;
      __builtin_memcpy(&two, p.x + r * p.x_stride + 2 * pair, sizeof(two));
      const __m512bh value = (__m512bh)_mm512_set1_epi32(two);
      for (int g = 0; g < groups; ++g) sums[r][g] = _mm512_dpbf16_ps(sums[r][g], w[g], value);
    }
  }
}

template <int rows, int groups>
void Block(const SkinnyBf16Product& p, const Bf16* weight, int64_t column) {
  __m512 sums[rows][groups];
  Accumulate<rows, groups>(p, weight, sums);
  for (int r = 0; r < rows; ++r) {
    for (int g = 0; g < groups; ++g) StoreSums(p.out, r, column + 16 * g, sums[r][g]);
  }
}

// All rows; four rows of four groups fill the registers.
template <int groups>
void Rows(const SkinnyBf16Product& p, const Bf16* weight, int64_t column) {
  static_assert(kMaxSkinnyBf16Rows == 4);
  switch (p.rows) {
    case 1:
      return Block<1, groups>(p, weight, column);
    case 2:
      return Block<2, groups>(p, weight, column);
    case 3:
      return Block<3, groups>(p, weight, column);
    default:
      return Block<4, groups>(p, weight, column);
  }
}

}  // namespace

void ComputeSkinnyBf16Product(const SkinnyBf16Product& p, int64_t first_group, int64_t last_group) {
  const int64_t groups_a_block = p.column_block / 16;
  for (int64_t group = first_group; group < last_group;) {
    const int64_t block = group / groups_a_block;
    const int64_t inside = group % groups_a_block;
    const int64_t block_left = groups_a_block - inside;
    const int64_t left = last_group - group;
    const int64_t count = block_left < left ? block_left : left;
    const Bf16* weight = p.weight + block * p.block_stride + inside * 32;
    switch (count) {
      case 1:
        Rows<1>(p, weight, group * 16);
        break;
      case 2:
        Rows<2>(p, weight, group * 16);
        break;
      case 3:
        Rows<3>(p, weight, group * 16);
        break;
      default:
        Rows<4>(p, weight, group * 16);
        break;
    }
    group += count;
  }
}

}  // namespace swaa::kernels::cpu
