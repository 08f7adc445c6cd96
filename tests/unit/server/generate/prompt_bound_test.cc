// The bound on a prompt's bytes never refuses what fits.

#include "server/generate/prompt_bound.h"

#include <random>

#include <gtest/gtest.h>

#include "server/generate/errors.h"
#include "tests/unit/testing/fake_device.h"

namespace swaa::server {
namespace {

constexpr auto kParse = Tokenizer::SpecialTokens::kParse;

TEST(PromptBoundTest, BoundsNothingUnlessTold) {
  EXPECT_TRUE(PromptBound().Check(std::string(1 << 20, 'x'), "prompt").ok());
}

TEST(PromptBoundTest, NamesFieldLimitAndContext) {
  const auto tokenizer = ::swaa::testing::MakeByteTokenizer();
  const PromptBound bound(*tokenizer, 100);
  size_t longest = 1;
  for (int32_t id = 0; id < tokenizer->vocab_size(); ++id) {
    longest = std::max(longest, tokenizer->TokenBytes(id).size());
  }
  const std::string most(100 * longest, 'a');
  EXPECT_TRUE(bound.Check(most, "prompt").ok());
  const absl::Status status = bound.Check(most + "a", "chat.messages[3].content");
  EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(ErrorReason(status), "prompt_too_long");
  for (const char* word : {"chat.messages[3].content", "100 tokens", "shorten"}) {
    EXPECT_NE(std::string(status.message()).find(word), std::string::npos) << status;
  }
}

TEST(PromptBoundTest, NeverRefusesWhatFits) {
  const auto tokenizer = ::swaa::testing::MakeByteTokenizer();
  const uint32_t seed = std::random_device()();
  std::mt19937 random(seed);
  int refused = 0;
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    const size_t length = 1 + random() % 200;
    while (text.size() < length) text += static_cast<char>(random() % 256);
    const auto context = static_cast<int32_t>(1 + random() % 32);
    const auto tokens = static_cast<int32_t>(tokenizer->Encode(text, kParse).size());
    if (PromptBound(*tokenizer, context).Check(text, "prompt").ok()) continue;
    ++refused;
    EXPECT_GT(tokens, context) << "seed " << seed << ", round " << round;
  }
  EXPECT_GT(refused, 0) << "seed " << seed;
}

}  // namespace
}  // namespace swaa::server
