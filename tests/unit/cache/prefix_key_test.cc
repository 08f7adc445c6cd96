// What a block is known by: scope, mask, tokens, and the hash over them.

#include "engine/cache/prefix_key.h"

#include <set>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace swaa {
namespace {

TEST(PrefixKey, GeneratedPositionsUnderDecodeMasksAreNotShareable) {
  Recipe recipe;
  recipe.window = 64;
  recipe.layer_full = {true, false};
  recipe.decode_full = {true, false};
  auto shareable = [&](int64_t prompt_tokens, int64_t block) {
    return MakePrefixKey({}, recipe).IsShareable(prompt_tokens, block);
  };
  EXPECT_TRUE(shareable(10, 5)) << "D is within F";
  recipe.decode_full = {true, true};
  EXPECT_TRUE(shareable(10, 0)) << "sees everything anyway";
  EXPECT_FALSE(shareable(10, 1));
  EXPECT_FALSE(shareable(127, 1)) << "one generated position is enough";
  EXPECT_TRUE(shareable(128, 1));
}

TEST(KnownTokens, CopiesAcrossThePromptsEnd) {
  const std::vector<int32_t> prompt = {1, 2, 3};
  const std::vector<int32_t> output = {4, 5};
  const KnownTokens tokens{prompt, output};
  for (int64_t first = 0; first <= 5; ++first) {
    for (int64_t count = 0; first + count <= 5; ++count) {
      std::vector<int32_t> copy(count);
      tokens.Copy(first, count, copy.data());
      for (int64_t i = 0; i < count; ++i)
        EXPECT_EQ(copy[i], first + i + 1) << first << " " << count;
    }
  }
}

// Blocks are named alike on every machine and by every version: the values are part of the
// interface with routers.
TEST(ContentHash, IsFixed) {
  ContentHasher hasher({});
  hasher.AddTokens(std::vector<int32_t>{1, 2, 3});
  hasher.AddBytes("salt and more");
  EXPECT_EQ(hasher.Finish(), (ContentHash{0x735712cbff11cd52u, 0xd8d00e4e54225d4cu}));
  ContentHasher chained(hasher.Finish());
  EXPECT_NE(chained.Finish(), ContentHasher({}).Finish());
}

TEST(ContentHash, DiffersWithEveryBitOfEveryWord) {
  std::set<std::pair<uint64_t, uint64_t>> seen;
  for (int word = 0; word < 4; ++word) {
    for (int bit = 0; bit < 64; ++bit) {
      ContentHasher hasher({});
      for (int i = 0; i < 4; ++i) hasher.Add(i == word ? uint64_t{1} << bit : 0);
      const ContentHash hash = hasher.Finish();
      EXPECT_TRUE(seen.insert({hash.high, hash.low}).second);
    }
  }
}

TEST(PrefixScope, TellsSaltsAndAdaptersApart) {
  const PrefixScope base = MakePrefixScope("", 0);
  EXPECT_EQ(base, MakePrefixScope("", 0));
  EXPECT_FALSE(base == MakePrefixScope("", 1));
  EXPECT_FALSE(base == MakePrefixScope(std::string(1, '\0'), 0));
  EXPECT_FALSE(MakePrefixScope("12345678", 0) == MakePrefixScope(std::string("12345678\0", 9), 0));
}

}  // namespace
}  // namespace swaa
