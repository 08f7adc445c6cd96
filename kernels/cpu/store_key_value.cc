// Kernels, CPU backend: writes keys and values of new positions into pages.

#include <cstdint>
#include <cstring>
#include <emmintrin.h>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/page_layout.h"

namespace swaa::kernels::cpu {
namespace {

// Four floats as bf16 in the low halves of four lanes; rounds as ToBf16 does.
__m128i RoundFour(const float* values) {
  const __m128 x = _mm_loadu_ps(values);
  const __m128i bits = _mm_castps_si128(x);
  const __m128i odd = _mm_and_si128(_mm_srli_epi32(bits, 16), _mm_set1_epi32(1));
  const __m128i rounded = _mm_add_epi32(bits, _mm_add_epi32(odd, _mm_set1_epi32(0x7fff)));
  const __m128i quiet_nan = _mm_or_si128(bits, _mm_set1_epi32(0x400000));
  const __m128i is_nan = _mm_castps_si128(_mm_cmpunord_ps(x, x));
  const __m128i chosen =
      _mm_or_si128(_mm_and_si128(is_nan, quiet_nan), _mm_andnot_si128(is_nan, rounded));
  return _mm_srli_epi32(chosen, 16);
}

// Pairs of dimensions lie a key tile apart.
void StoreKeyBf16(const float* key, int32_t head_dim, int32_t offset, std::byte* block) {
  std::byte* out = block + (offset / kKeyTile * kKeyTile * head_dim + offset % kKeyTile * 2) * 2;
  for (int32_t d = 0; d < head_dim; d += 4) {
    const __m128i x = RoundFour(key + d);
    const __m128i pairs = _mm_or_si128(x, _mm_srli_epi64(x, 16));
    const int32_t first = _mm_cvtsi128_si32(pairs);
    const int32_t second = _mm_cvtsi128_si32(_mm_unpackhi_epi64(pairs, pairs));
    std::memcpy(out + d * kKeyTile * 2, &first, 4);
    std::memcpy(out + (d + 2) * kKeyTile * 2, &second, 4);
  }
}

// Where element (offset, dimension 0) of a block of values lies, and how far the next 16 dimensions
// are.
uint16_t* ValueAt(std::byte* block, int32_t head_dim, int32_t offset) {
  const int32_t in_run = offset % kValueTile;
  return reinterpret_cast<uint16_t*>(block) + offset / kValueTile * kValueTile * head_dim +
         in_run / 2 * 32 + in_run % 2;
}
constexpr int32_t kValueTileElements = 16 * kValueTile;

// A value is every second element of its run of 16 dimensions: the other half belongs to the key
// beside it, which another thread may be writing.
void StoreValueBf16(const float* value, int32_t head_dim, int32_t offset, std::byte* block) {
  uint16_t* out = ValueAt(block, head_dim, offset);
  for (int32_t d = 0; d < head_dim; d += 4) {
    const __m128i x = RoundFour(value + d);
    uint16_t* run = out + d / 16 * kValueTileElements + d % 16 * 2;
    run[0] = static_cast<uint16_t>(_mm_extract_epi16(x, 0));
    run[2] = static_cast<uint16_t>(_mm_extract_epi16(x, 2));
    run[4] = static_cast<uint16_t>(_mm_extract_epi16(x, 4));
    run[6] = static_cast<uint16_t>(_mm_extract_epi16(x, 6));
  }
}

// Two keys side by side fill their run.
void StoreValuePairBf16(const float* even, const float* odd, int32_t head_dim, int32_t even_offset,
                        std::byte* block) {
  uint16_t* out = ValueAt(block, head_dim, even_offset);
  for (int32_t d = 0; d < head_dim; d += 4) {
    const __m128i pairs = _mm_or_si128(RoundFour(even + d), _mm_slli_epi32(RoundFour(odd + d), 16));
    uint16_t* run = out + d / 16 * kValueTileElements + d % 16 * 2;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(run), pairs);
  }
}

void StoreKeyF32(const float* key, int32_t head_dim, int32_t offset, std::byte* block) {
  auto* out =
      reinterpret_cast<float*>(block) + offset / kKeyTile * kKeyTile * head_dim + offset % kKeyTile;
  for (int32_t d = 0; d < head_dim; ++d) out[d * kKeyTile] = key[d];
}

void StoreValueF32(const float* value, int32_t head_dim, int32_t offset, std::byte* block) {
  std::memcpy(block + static_cast<int64_t>(offset) * head_dim * 4, value, head_dim * 4);
}

bool ArePair(const KeyValueRow& row, const KeyValueRow& next) {
  return row.page == next.page && row.offset % 2 == 0 && next.offset == row.offset + 1;
}

// One row, or two whose positions make a pair.
void StoreBf16(const KeyValueRow* rows, int count, int32_t kv_heads, int32_t head_dim) {
  for (int32_t head = 0; head < kv_heads; ++head) {
    const int64_t begin = static_cast<int64_t>(head) * head_dim;
    std::byte* page = rows[0].page;
    std::byte* keys = page + KeyBlockOffset(DataType::kBf16, head_dim, head);
    std::byte* values = page + ValueBlockOffset(DataType::kBf16, head_dim, kv_heads, head);
    for (int i = 0; i < count; ++i) {
      StoreKeyBf16(rows[i].k + begin, head_dim, rows[i].offset, keys);
    }
    if (count == 2) {
      StoreValuePairBf16(rows[0].v + begin, rows[1].v + begin, head_dim, rows[0].offset, values);
    } else {
      StoreValueBf16(rows[0].v + begin, head_dim, rows[0].offset, values);
    }
  }
}

void StoreF32(const KeyValueRow& row, int32_t kv_heads, int32_t head_dim) {
  for (int32_t head = 0; head < kv_heads; ++head) {
    const int64_t begin = static_cast<int64_t>(head) * head_dim;
    StoreKeyF32(row.k + begin, head_dim, row.offset,
                row.page + KeyBlockOffset(DataType::kF32, head_dim, head));
    StoreValueF32(row.v + begin, head_dim, row.offset,
                  row.page + ValueBlockOffset(DataType::kF32, head_dim, kv_heads, head));
  }
}

}  // namespace

void StoreKeyValue(const KeyValueRow* rows, int64_t count, int32_t kv_heads, int32_t head_dim,
                   const CpuAttentionOptions& options) {
  if (options.kv == DataType::kF32) {
    for (int64_t r = 0; r < count; ++r) StoreF32(rows[r], kv_heads, head_dim);
    return;
  }
  for (int64_t r = 0; r < count;) {
    const int taken = r + 1 < count && ArePair(rows[r], rows[r + 1]) ? 2 : 1;
    StoreBf16(rows + r, taken, kv_heads, head_dim);
    r += taken;
  }
}

}  // namespace swaa::kernels::cpu
