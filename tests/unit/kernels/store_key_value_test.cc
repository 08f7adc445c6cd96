// Tests of kernels: keys and values in a page lie where kernels/cpu/attention.h says.

#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/cpu/attention.h"

namespace swaa::kernels {
namespace {

constexpr int32_t kKvHeads = 3;

struct Rows {
  std::vector<float> k, v;  // [kPageTokens, kKvHeads, head_dim]
};

Rows RandomRows(int32_t head_dim) {
  std::mt19937 random(head_dim);
  std::normal_distribution<float> normal;
  Rows rows;
  for (int64_t i = 0; i < int64_t{kPageTokens} * kKvHeads * head_dim; ++i) {
    rows.k.push_back(normal(random));
    rows.v.push_back(normal(random));
  }
  rows.k[5] = std::numeric_limits<float>::quiet_NaN();
  rows.v[7] = std::numeric_limits<float>::infinity();
  rows.v[8] = 1.00390625f;  // between two bf16: to the even one
  return rows;
}

// Stores all rows of a page, every `stride`-th next: 1 is in order, others leave no two rows
// together.
std::vector<std::byte> Store(const Rows& rows, int32_t head_dim, DataType kv, int32_t stride) {
  std::vector<std::byte> page(cpu::KvPageBytes(kv, kKvHeads, head_dim), std::byte{0x55});
  std::vector<cpu::KeyValueRow> writes;
  for (int32_t i = 0; i < kPageTokens; ++i) {
    const int32_t offset = i * stride % kPageTokens;
    const int64_t begin = int64_t{offset} * kKvHeads * head_dim;
    writes.push_back({rows.k.data() + begin, rows.v.data() + begin, page.data(), offset});
  }
  cpu::StoreKeyValue(writes.data(), writes.size(), kKvHeads, head_dim, {.kv = kv});
  return page;
}

void ExpectPairedPage(const Rows& rows, int32_t head_dim, const std::vector<std::byte>& page) {
  ASSERT_EQ(page.size(), 2u * kKvHeads * kPageTokens * head_dim * 2);
  const auto* bits = reinterpret_cast<const uint16_t*>(page.data());
  const int64_t block = int64_t{kPageTokens} * head_dim;
  for (int32_t key = 0; key < kPageTokens; ++key) {
    for (int32_t head = 0; head < kKvHeads; ++head) {
      for (int32_t d = 0; d < head_dim; ++d) {
        const int64_t row = (int64_t{key} * kKvHeads + head) * head_dim + d;
        // [key/16][head_dim/2][16 keys][2]
        const int64_t k_at = ((key / 16 * (head_dim / 2) + d / 2) * 16 + key % 16) * 2 + d % 2;
        // [key/32][head_dim/16][16 key pairs][16 dims][2]
        const int64_t v_at =
            (((key / 32 * (head_dim / 16) + d / 16) * 16 + key % 32 / 2) * 16 + d % 16) * 2 +
            key % 2;
        ASSERT_EQ(bits[head * block + k_at], ToBf16(rows.k[row]).bits) << key << " " << d;
        ASSERT_EQ(bits[(kKvHeads + head) * block + v_at], ToBf16(rows.v[row]).bits)
            << key << " " << d;
      }
    }
  }
}

TEST(StoreKeyValueTest, Bf16PageIsPaired) {
  for (int32_t head_dim : {32, 64, 96, 128, 256}) {
    const Rows rows = RandomRows(head_dim);
    for (int32_t stride : {1, 37}) {
      ExpectPairedPage(rows, head_dim, Store(rows, head_dim, DataType::kBf16, stride));
    }
  }
}

TEST(StoreKeyValueTest, F32PageKeepsEveryBit) {
  for (int32_t head_dim : {32, 96, 128}) {
    const Rows rows = RandomRows(head_dim);
    const std::vector<std::byte> page = Store(rows, head_dim, DataType::kF32, 37);
    ASSERT_EQ(page.size(), 2u * kKvHeads * kPageTokens * head_dim * 4);
    const int64_t block = int64_t{kPageTokens} * head_dim * 4;
    for (int32_t key = 0; key < kPageTokens; ++key) {
      for (int32_t head = 0; head < kKvHeads; ++head) {
        for (int32_t d = 0; d < head_dim; ++d) {
          const int64_t row = (int64_t{key} * kKvHeads + head) * head_dim + d;
          // [key/16][head_dim][16 keys], and [key][head_dim]
          const int64_t k_at = (key / 16 * head_dim + d) * 16 + key % 16;
          const int64_t v_at = key * head_dim + d;
          ASSERT_EQ(std::memcmp(&page[head * block + k_at * 4], &rows.k[row], 4), 0);
          ASSERT_EQ(std::memcmp(&page[(kKvHeads + head) * block + v_at * 4], &rows.v[row], 4), 0);
        }
      }
    }
  }
}

// A row leaves every other row of its page alone.
TEST(StoreKeyValueTest, WritesOneRowOnly) {
  const int32_t head_dim = 64;
  const Rows rows = RandomRows(head_dim);
  for (DataType kv : {DataType::kBf16, DataType::kF32}) {
    const std::vector<std::byte> full = Store(rows, head_dim, kv, 1);
    std::vector<std::byte> page = full;
    std::vector<float> other(kKvHeads * head_dim, 3.5f);
    const cpu::KeyValueRow write = {other.data(), other.data(), page.data(), 21};
    cpu::StoreKeyValue(&write, 1, kKvHeads, head_dim, {.kv = kv});
    int64_t changed = 0;
    const int64_t size = SizeOf(kv);
    for (size_t i = 0; i < page.size(); i += size) {
      changed += std::memcmp(&page[i], &full[i], size) != 0;
    }
    EXPECT_EQ(changed, 2 * kKvHeads * head_dim);
  }
}

}  // namespace
}  // namespace swaa::kernels
