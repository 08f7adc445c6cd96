// Tests: which marks a model thinks between, whether a prompt has opened a section, and where
// sections begin and end in tokens and in text. What deltas are made of them is tested with the
// deltas.

#include "engine/tokenizer/thinking.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tokenizer/chat_format.h"
#include "tests/unit/tokenizer/test_tokenizers.h"

namespace swaa {
namespace {

constexpr int32_t kStart = 256;  // <|im_start|>
constexpr int32_t kOpen = 257;   // <think>
constexpr int32_t kClose = 258;

TokenizerData WithMarkTokens(TokenKind kind) {
  TokenizerData data = ByteData({}, {"<|im_start|>", "<think>", "</think>"});
  data.kinds[kOpen] = data.kinds[kClose] = kind;
  return data;
}

TokenizerData WithMarksInTheTemplate() {
  TokenizerData data = ByteData({}, {"<|im_start|>"});
  data.chat_template = "{{ messages[0].content.split('</think>')[-1] }}";
  return data;
}

TEST(ThinkingMarksTest, AreTokensElseWhatTheTemplateWrites) {
  for (const TokenKind kind : {TokenKind::kAdded, TokenKind::kSpecial}) {
    const auto marks = FindThinkingMarks(*MakeTokenizer(WithMarkTokens(kind)));
    ASSERT_TRUE(marks.has_value() && marks->ids.has_value());
    EXPECT_EQ(marks->ids->open, kOpen);
    EXPECT_EQ(marks->ids->close, kClose);
  }
  const auto in_text = FindThinkingMarks(*MakeTokenizer(WithMarksInTheTemplate()));
  ASSERT_TRUE(in_text.has_value());
  EXPECT_EQ(in_text->open, "<think>");
  EXPECT_EQ(in_text->close, "</think>");
  EXPECT_FALSE(in_text->ids.has_value());

  const auto others = FindThinkingMarks(*MakeTokenizer(ByteData({}, {"[THINK]", "[/THINK]"})));
  ASSERT_TRUE(others.has_value() && others->ids.has_value());
  EXPECT_EQ(others->ids->close, 257);
  EXPECT_FALSE(FindThinkingMarks(*MakeTokenizer(ByteData({}, {"<think>"}))).has_value());
  EXPECT_FALSE(FindThinkingMarks(*MakeTokenizer(TinyData("llama3_tiny"))).has_value());
}

TEST(EndsInThinkingTest, TheLastMarkOfTheLastTurnCounts) {
  struct Case {
    std::string prompt;
    bool inside;
  };
  const std::vector<Case> cases = {
      {"", false},
      {"x", false},
      {"<|im_start|>assistant\n", false},
      {"<|im_start|>assistant\n<think>\n", true},
      {"<|im_start|>assistant\n<think>\n\n</think>\n\n", false},
      {"<|im_start|>assistant\n<think>\n\n</think>\n\n<think>\nas I was say", true},
      {"<|im_start|>user\nwhat is <think>?\n<|im_start|>assistant\n", false},
      {"<think>", true},
      {"</think>", false},
  };
  for (const bool as_tokens : {true, false}) {
    const auto tokenizer =
        MakeTokenizer(as_tokens ? WithMarkTokens(TokenKind::kAdded) : WithMarksInTheTemplate());
    const auto marks = FindThinkingMarks(*tokenizer);
    ASSERT_TRUE(marks.has_value() && marks->ids.has_value() == as_tokens);
    for (const Case& test : cases) {
      const auto prompt = tokenizer->Encode(test.prompt, Tokenizer::SpecialTokens::kParse);
      EXPECT_EQ(EndsInThinking(*marks, *tokenizer, prompt), test.inside) << test.prompt;
    }
  }
}

// Qwen3's own template, with tokens as marks.
TEST(EndsInThinkingTest, FollowsTheSwitchAndTheMessageThatGoesOn) {
  const auto tokenizer = MakeTokenizer(TinyData("qwen3_tiny"));
  const auto marks = FindThinkingMarks(*tokenizer);
  const auto format = ChatFormat::Create(*tokenizer);
  ASSERT_TRUE(format.ok() && marks.has_value() && marks->ids.has_value());
  const auto inside = [&](const Conversation& conversation) {
    const auto prompt = (*format)->Render(conversation);
    EXPECT_TRUE(prompt.ok()) << prompt.status();
    return prompt.ok() && EndsInThinking(*marks, *tokenizer, *prompt);
  };
  Conversation conversation;
  conversation.messages = {{ChatRole::kUser, "Hi <think>", ""}};
  for (const std::optional<bool> thinking : {std::optional<bool>(), {true}, {false}}) {
    conversation.thinking = thinking;
    EXPECT_FALSE(inside(conversation));
  }
  conversation.thinking.reset();
  conversation.continue_final_message = true;
  conversation.messages.push_back({ChatRole::kAssistant, "<think>\nHm, the user", ""});
  EXPECT_TRUE(inside(conversation));
  conversation.messages.back().content += "\n</think>\n\nWell";
  EXPECT_FALSE(inside(conversation));
}

TEST(ThinkingSectionsTest, WhatOnlyLooksLikeATokenIsNoMark) {
  const auto tokenizer = MakeTokenizer(WithMarkTokens(TokenKind::kAdded));
  const auto marks = FindThinkingMarks(*tokenizer);
  ThinkingSections sections(&*marks, /*begins_inside=*/false);
  for (const char c : std::string("<think>")) {
    EXPECT_EQ(sections.Append(c, std::string(1, c)), false);
  }
  EXPECT_EQ(sections.Append(kOpen, "<think>"), true);
  EXPECT_EQ(sections.Append('a', "a"), true);
  EXPECT_EQ(sections.Append(kClose, "</think>"), true);
  EXPECT_EQ(sections.Append('b', "b"), false);
  const ThinkingSections::Piece first = sections.PieceAt(0);
  EXPECT_FALSE(first.thinking);
  EXPECT_EQ(first.end, 7u);
  EXPECT_TRUE(sections.PieceAt(7).thinking);
  EXPECT_EQ(sections.PieceAt(7).end, 23u);
  EXPECT_FALSE(sections.PieceAt(23).thinking);
}

TEST(ThinkingSectionsTest, WhatMayBeginAMarkIsUndecided) {
  const auto tokenizer = MakeTokenizer(WithMarksInTheTemplate());
  const auto marks = FindThinkingMarks(*tokenizer);
  ThinkingSections sections(&*marks, /*begins_inside=*/false);
  EXPECT_EQ(sections.Append('a', "a"), false);
  EXPECT_EQ(sections.Append('<', "<t"), std::nullopt);
  EXPECT_EQ(sections.decided_bytes(), 1u);
  EXPECT_EQ(sections.Append('<', "<"), std::nullopt);
  EXPECT_EQ(sections.decided_bytes(), 3u);
  EXPECT_FALSE(sections.IsThinking(1));
  EXPECT_EQ(sections.Append('t', "think"), std::nullopt);
  EXPECT_EQ(sections.Append('>', ">x"), true);
  EXPECT_TRUE(sections.IsThinking(3));
  // Inside nothing is in doubt, and the closing mark may come in pieces, too.
  EXPECT_EQ(sections.Append('<', "</"), true);
  EXPECT_EQ(sections.Append('t', "think"), true);
  EXPECT_EQ(sections.Append('>', ">\n"), true);
  EXPECT_EQ(sections.Append('b', "b"), false);
  // A token that is not shown ends what might have become a mark, as the end does.
  EXPECT_EQ(sections.Append('<', "<think"), std::nullopt);
  EXPECT_EQ(sections.Append(256, ""), false);
  EXPECT_EQ(sections.Append('>', ">"), false);
  EXPECT_EQ(sections.Append('<', "<"), std::nullopt);
  sections.Finish();
  EXPECT_FALSE(sections.IsThinking(sections.decided_bytes() - 1));
}

}  // namespace
}  // namespace swaa
