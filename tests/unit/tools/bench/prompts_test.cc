// Prompts: exact lengths, shared prefixes, and the same ones for the same seed.

#include "tools/bench/prompts.h"

#include <algorithm>
#include <map>
#include <set>

#include <gtest/gtest.h>

namespace swaa::tools::bench {
namespace {

PromptOptions Options(const std::string& tokens) {
  return {.tokens = *LengthDistribution::Parse(tokens), .seed = 5, .vocab_size = 1000};
}

std::vector<uint32_t> Ids(const PromptMaker& maker, uint64_t index, uint64_t length_index = 0) {
  v1::GenerateRequest request;
  maker.SetInput(index, length_index, &request);
  return {request.token_ids().ids().begin(), request.token_ids().ids().end()};
}

TEST(PromptsTest, TokenIdsAreInTheVocabularyAndNeverAvoidedOnes) {
  PromptOptions options = Options("5000");
  options.vocab_size = 8;
  options.avoided_ids = {2, 7};
  const std::vector<uint32_t> ids = Ids(PromptMaker(options), 0);
  EXPECT_EQ(ids.size(), 5000u);
  EXPECT_EQ(std::set<uint32_t>(ids.begin(), ids.end()), (std::set<uint32_t>{0, 1, 3, 4, 5, 6}));
}

TEST(PromptsTest, ARequestIsAFunctionOfSeedAndIndex) {
  const PromptMaker maker(Options("10:40"));
  PromptOptions other = Options("10:40");
  other.seed = 6;
  const std::vector<uint32_t> later = Ids(maker, 9);
  EXPECT_NE(Ids(maker, 8), later);
  EXPECT_EQ(Ids(PromptMaker(Options("10:40")), 9), later);
  EXPECT_NE(Ids(PromptMaker(other), 9), later);
}

TEST(PromptsTest, TheLengthFollowsFromItsOwnIndex) {
  const PromptMaker maker(Options("10:10000"));
  const std::vector<uint32_t> ids = Ids(maker, 3, 4);
  EXPECT_EQ(Ids(maker, 5, 4).size(), ids.size());
  EXPECT_NE(Ids(maker, 5, 4), ids);
  EXPECT_NE(Ids(maker, 3, 5).size(), ids.size());
}

TEST(PromptsTest, PrefixesAreSharedByManyAndTheRestIsNot) {
  PromptOptions options = Options("20");
  options.shared_prefix_tokens = 50;
  options.shared_prefixes = 3;
  const PromptMaker maker(options);
  std::map<std::vector<uint32_t>, int> prefixes;
  std::set<std::vector<uint32_t>> rests;
  for (uint64_t i = 0; i < 300; ++i) {
    const std::vector<uint32_t> ids = Ids(maker, i);
    ASSERT_EQ(ids.size(), 70u);
    ++prefixes[{ids.begin(), ids.begin() + 50}];
    rests.emplace(ids.begin() + 50, ids.end());
  }
  EXPECT_EQ(prefixes.size(), 3u);
  for (const auto& [prefix, count] : prefixes) EXPECT_GT(count, 60);
  EXPECT_EQ(rests.size(), 300u);
}

TEST(PromptsTest, ProseHasTheWordsThatTheTokensMake) {
  PromptOptions options = Options("260");
  options.text = true;
  options.tokens_per_word = 1.3;
  options.shared_prefix_tokens = 130;
  const PromptMaker maker(options);
  v1::GenerateRequest first;
  v1::GenerateRequest second;
  maker.SetInput(0, 0, &first);
  maker.SetInput(1, 0, &second);
  const auto words = [](const std::string& text) {
    return 1 + std::count(text.begin(), text.end(), ' ');
  };
  EXPECT_EQ(words(first.prompt()), 300);
  EXPECT_EQ(words(second.prompt()), 300);
  EXPECT_NE(first.prompt(), second.prompt());
  const auto end = std::mismatch(first.prompt().begin(), first.prompt().end(),
                                 second.prompt().begin(), second.prompt().end());
  const std::string common(first.prompt().begin(), end.first);
  EXPECT_GE(words(common), 100);
}

}  // namespace
}  // namespace swaa::tools::bench
