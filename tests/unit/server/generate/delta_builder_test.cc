// Deltas: whole UTF-8, batches, what is held back, and the limit of an event.

#include "server/generate/delta_builder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/testing/fake_device.h"

namespace swaa::server {
namespace {

using ::testing::ElementsAre;
using Responses = std::vector<v1::GenerateResponse>;

class DeltaBuilderTest : public ::testing::Test {
 protected:
  // The bytes of `text` as tokens, all visible as they come.
  std::vector<OutputToken> Tokens(const std::string& text) {
    std::vector<OutputToken> tokens;
    for (char c : text) {
      OutputToken token;
      token.scored.token = static_cast<uint8_t>(c);
      token.visible_bytes = ++visible_;
      tokens.push_back(token);
    }
    return tokens;
  }

  static std::vector<std::string> Texts(const Responses& responses) {
    std::vector<std::string> texts;
    for (const auto& response : responses) texts.push_back(response.token_delta().text());
    return texts;
  }

  std::unique_ptr<Tokenizer> tokenizer_ = ::swaa::testing::MakeByteTokenizer();
  uint64_t visible_ = 0;
};

TEST_F(DeltaBuilderTest, CharactersComeWholeWithTheTokenThatCompletesThem) {
  DeltaBuilder builder(tokenizer_.get(), 1);
  Responses out;
  builder.Add(Tokens("a\xc3\xa9\xe6\xbc\xa2"), &out);
  builder.Finish(false, &out);
  EXPECT_THAT(Texts(out), ElementsAre("a", "", "\xc3\xa9", "", "", "\xe6\xbc\xa2"));
}

TEST_F(DeltaBuilderTest, BytesThatAreNoUtf8AreReplaced) {
  DeltaBuilder builder(tokenizer_.get(), 0);
  Responses out;
  builder.Add(Tokens("\xff"
                     "a\xe6\xbc"),
              &out);
  EXPECT_THAT(out, ElementsAre());
  builder.Finish(false, &out);
  EXPECT_THAT(Texts(out), ElementsAre("\xef\xbf\xbd"
                                      "a"
                                      "\xef\xbf\xbd"));
}

TEST_F(DeltaBuilderTest, BatchesHoldAsManyTokensAsAskedFor) {
  DeltaBuilder builder(tokenizer_.get(), 3);
  Responses out;
  builder.Add(Tokens("abcdefgh"), &out);
  EXPECT_THAT(Texts(out), ElementsAre("abc", "def"));
  builder.Finish(false, &out);
  EXPECT_THAT(Texts(out), ElementsAre("abc", "def", "gh"));
}

TEST_F(DeltaBuilderTest, HeldBackTextComesLaterOrNever) {
  for (bool show_rest : {false, true}) {
    visible_ = 0;
    DeltaBuilder builder(tokenizer_.get(), 1);
    Responses out;
    std::vector<OutputToken> tokens = Tokens("abcd");
    tokens[1].visible_bytes = tokens[2].visible_bytes = 1;
    tokens[3].visible_bytes = 2;
    builder.Add(tokens, &out);
    EXPECT_THAT(Texts(out), ElementsAre("a", "", "", "b"));
    builder.Finish(show_rest, &out);
    ASSERT_EQ(out.size(), show_rest ? 5u : 4u);
    if (show_rest) {
      EXPECT_EQ(out[4].token_delta().text(), "cd");
      EXPECT_EQ(out[4].token_delta().tokens_size(), 0);
    }
  }
}

TEST_F(DeltaBuilderTest, TokensThatAreNotShownAreStillReported) {
  DeltaBuilder builder(tokenizer_.get(), 0);
  Responses out;
  std::vector<OutputToken> tokens = Tokens("ab");
  OutputToken end;
  end.scored.token = ::swaa::testing::kFakeEos;
  end.shown = false;
  end.visible_bytes = 2;
  tokens.insert(tokens.begin() + 1, end);
  tokens[1].visible_bytes = 1;
  builder.Add(tokens, &out);
  builder.Finish(false, &out);
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].token_delta().text(), "ab");
  EXPECT_EQ(out[0].token_delta().tokens(1).token_id(),
            static_cast<uint32_t>(::swaa::testing::kFakeEos));
}

ScoredToken WithAlternatives() {
  ScoredToken scored;
  scored.token = 7;
  scored.logprob = -1;
  for (int32_t i = 0; i < 20; ++i) scored.top.emplace_back(40000 + i, -1.5f);
  return scored;
}

TEST_F(DeltaBuilderTest, NoDeltaIsLargerThanTheLimit) {
  DeltaBuilder builder(tokenizer_.get(), 0);
  Responses out;
  OutputToken token;
  token.scored = WithAlternatives();
  token.has_logprob = true;
  for (int i = 0; i < 9000; ++i) {
    token.visible_bytes = static_cast<uint64_t>(i) + 1;
    builder.Add({token}, &out);
  }
  builder.Finish(false, &out);
  int tokens = 0;
  for (const auto& response : out) {
    EXPECT_LE(response.ByteSizeLong(), kMaxEventBytes);
    tokens += response.token_delta().tokens_size();
  }
  EXPECT_EQ(tokens, 9000);
  EXPECT_EQ(out.size(), 3u);  // as few as possible: each token has some 270 bytes
}

TEST_F(DeltaBuilderTest, PromptLogprobsAreSplitAndNumbered) {
  Responses out;
  AppendPromptLogprobs(0, std::vector<ScoredToken>(9000, WithAlternatives()), &out);
  AppendPromptLogprobs(9000, {WithAlternatives()}, &out);
  uint32_t next = 0;
  for (const auto& response : out) {
    EXPECT_LE(response.ByteSizeLong(), kMaxEventBytes);
    EXPECT_EQ(response.prompt_logprobs().first_position(), next);
    next += static_cast<uint32_t>(response.prompt_logprobs().tokens_size());
  }
  EXPECT_EQ(next, 9001u);
  EXPECT_EQ(out.size(), 4u);
  EXPECT_FALSE(out[0].prompt_logprobs().tokens(0).has_logprob());
  EXPECT_TRUE(out[0].prompt_logprobs().tokens(1).has_logprob());
}

TEST_F(DeltaBuilderTest, FinishedTellsWhatStoppedIt) {
  GenerationResult result;
  result.stop = {.kind = StopCause::Kind::kStopString, .stop_string = "END"};
  result.stats.attended_keys = 12;
  result.stats.decode_time = absl::Milliseconds(3);
  v1::Finished finished = FinishedEvent(result).finished();
  EXPECT_EQ(finished.stop_match().stop_string(), "END");
  EXPECT_EQ(finished.stats().attended_keys(), 12u);
  EXPECT_EQ(finished.stats().decode_time_us(), 3000u);
  result.stop = {.kind = StopCause::Kind::kEosToken, .token = 2};
  EXPECT_EQ(FinishedEvent(result).finished().stop_match().eos_token_id(), 2u);
  result.reason = FinishReason::kLength;
  result.stop = {};
  finished = FinishedEvent(result).finished();
  EXPECT_FALSE(finished.has_stop_match());
  EXPECT_EQ(finished.finish_reason(), v1::FINISH_REASON_LENGTH);
}

}  // namespace
}  // namespace swaa::server
