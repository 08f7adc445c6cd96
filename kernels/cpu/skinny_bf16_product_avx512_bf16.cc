// Skinny products for AVX-512 with bf16 dot products. Compiled with those instructions:
// nothing here may use inline code of a shared header.

#include <immintrin.h>

#include "kernels/cpu/skinny_bf16_product.h"
#include "kernels/cpu/skinny_store.h"

namespace swaa::kernels::cpu {
namespace {

#define SWAA_INLINE inline __attribute__((always_inline))

// Bytes ahead of the read position that are fetched: the hardware's own prefetch stops at 4 KiB
// borders.
constexpr int64_t kPrefetchBytes = 4096;

SWAA_INLINE __m512bh PairOf(const int32_t* x) { return (__m512bh)_mm512_set1_epi32(*x); }

// Pairs of inputs whose weights of one column block stay in the first-level cache, while all rows
// pass over them.
constexpr int64_t kPairsTogether = 64;

// Sums of one product's rows over one column block: [kBf16Rows][4 groups] vectors.
struct Sums {
  __m512 of[kBf16Rows][4];
};

// Adds inputs first_pair .. last_pair - 1 of all rows to the sums of `groups` groups of columns,
// whose weights begin at `weight`.
template <int rows, int groups>
void AddPairs(const SkinnyBf16Product& p, const Bf16* weight, int64_t first_pair, int64_t last_pair,
              Sums* all) {
  __m512 sums[rows][groups];
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
    for (int g = 0; g < groups; ++g) {
      sums[r][g] = first_pair == 0 ? _mm512_setzero_ps() : all->of[r][g];
    }
  }
  const int64_t pair_stride = p.column_block * 2;
  const int32_t* x = p.x + first_pair * rows;
  weight += first_pair * pair_stride;
  for (int64_t pair = first_pair; pair < last_pair; ++pair, weight += pair_stride, x += rows) {
    __m512bh w[groups];
#pragma GCC unroll 4
    for (int g = 0; g < groups; ++g) {
      const Bf16* address = weight + g * 32;
      _mm_prefetch(reinterpret_cast<const char*>(address) + kPrefetchBytes, _MM_HINT_T0);
      w[g] = (__m512bh)_mm512_loadu_si512(address);
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
      const __m512bh value = PairOf(x + r);
#pragma GCC unroll 4
      for (int g = 0; g < groups; ++g) sums[r][g] = _mm512_dpbf16_ps(sums[r][g], w[g], value);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
    for (int g = 0; g < groups; ++g) all->of[r][g] = sums[r][g];
  }
}

using AddPairsFunction = void (*)(const SkinnyBf16Product&, const Bf16*, int64_t, int64_t, Sums*);

template <int groups>
AddPairsFunction AddPairsFor(int64_t rows) {
  static constexpr AddPairsFunction kFunctions[] = {AddPairs<1, groups>, AddPairs<2, groups>,
                                                    AddPairs<3, groups>, AddPairs<4, groups>,
                                                    AddPairs<5, groups>, AddPairs<6, groups>};
  static_assert(kBf16Rows == sizeof(kFunctions) / sizeof(kFunctions[0]));
  return kFunctions[rows - 1];
}

// `groups` groups of columns from `column` on, of all products.
void ComputeColumns(const SkinnyBf16Product* products, int64_t count, const Bf16* weight,
                    int64_t column, int64_t groups) {
  Sums sums[kMaxBf16Products];
  for (int64_t pair = 0; pair < products->in_pairs; pair += kPairsTogether) {
    int64_t end = pair + kPairsTogether;
    if (end > products->in_pairs) end = products->in_pairs;
    for (int64_t b = 0; b < count; ++b) {
      const SkinnyBf16Product& p = products[b];
      const AddPairsFunction add = groups == 1   ? AddPairsFor<1>(p.rows)
                                   : groups == 2 ? AddPairsFor<2>(p.rows)
                                   : groups == 3 ? AddPairsFor<3>(p.rows)
                                                 : AddPairsFor<4>(p.rows);
      add(p, weight, pair, end, &sums[b]);
    }
  }
  for (int64_t b = 0; b < count; ++b) {
    for (int64_t r = 0; r < products[b].rows; ++r) {
      for (int64_t g = 0; g < groups; ++g) {
        StoreSums(products[b].out, r, column + 16 * g, sums[b].of[r][g]);
      }
    }
  }
}

}  // namespace

void PrepareActivations(const Bf16* x, int64_t rows, int64_t in_features, int32_t* x_out) {
  for (int64_t r = 0; r < rows; ++r, x += in_features) {
    for (int64_t i = 0; i < in_features; i += 2) {
      const uint32_t high = i + 1 < in_features ? x[i + 1].bits : 0;
      x_out[i / 2 * rows + r] = static_cast<int32_t>(high << 16 | x[i].bits);
    }
  }
}

void ComputeSkinnyBf16Products(const SkinnyBf16Product* products, int64_t count,
                               int64_t first_group, int64_t last_group) {
  const int64_t groups_a_block = products->column_block / 16;
  for (int64_t group = first_group; group < last_group;) {
    const int64_t block = group / groups_a_block;
    const int64_t inside = group % groups_a_block;
    int64_t groups = groups_a_block - inside;
    if (groups > last_group - group) groups = last_group - group;
    const Bf16* weight = products->weight + block * products->block_stride + inside * 32;
    ComputeColumns(products, count, weight, group * 16, groups);
    group += groups;
  }
}

}  // namespace swaa::kernels::cpu
