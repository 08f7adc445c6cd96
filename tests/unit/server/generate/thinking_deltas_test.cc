// Deltas of a model that thinks: of one section each, nothing lost, nothing moved, wherever tokens,
// marks and what is held back begin and end.

#include <algorithm>
#include <random>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tokenizer/thinking.h"
#include "server/generate/delta_builder.h"
#include "tests/unit/testing/seed.h"
#include "tests/unit/tokenizer/test_tokenizers.h"

namespace swaa::server {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

constexpr int32_t kFirstPiece = 256;

// Besides the bytes: tokens of several, some of which hold parts of marks, and of text around them.
const std::vector<std::string>& Pieces() {
  static const auto* pieces = new std::vector<std::string>{"<|hidden|>",
                                                           "<th",
                                                           "ink>",
                                                           "</",
                                                           "think",
                                                           ">\n\n",
                                                           "a <think>b",
                                                           "x</think>y<think>z",
                                                           "</think><think>",
                                                           "\xe6\xbc",
                                                           "\xa2<",
                                                           "wo",
                                                           "rd ",
                                                           "<<think",
                                                           "</thi",
                                                           "nk>"};
  return *pieces;
}

// With the marks in the text, or as two tokens more, which are shown or not.
TokenizerData Vocabulary(bool mark_tokens, TokenKind mark_kind) {
  std::vector<std::string> literals = Pieces();
  if (mark_tokens) literals.insert(literals.end(), {"<think>", "</think>"});
  TokenizerData data = ByteData({}, literals);
  for (size_t id = kFirstPiece + 1; id < data.kinds.size(); ++id) {
    data.kinds[id] = id < kFirstPiece + Pieces().size() ? TokenKind::kAdded : mark_kind;
  }
  if (!mark_tokens) data.chat_template = "{{ messages[0].content.split('</think>')[-1] }}";
  return data;
}

using Section = std::pair<bool, std::string>;

// What came of the same section one after the other.
void Append(std::vector<Section>& sections, bool thinking, const std::string& text) {
  if (text.empty()) return;
  if (sections.empty() || sections.back().first != thinking) sections.emplace_back(thinking, "");
  sections.back().second += text;
}

struct Deltas {
  std::vector<Section> text;
  std::vector<std::pair<bool, int32_t>> tokens;
  uint32_t reasoning_tokens = 0;
};

Deltas Read(const std::vector<v1::GenerateResponse>& responses, uint32_t tokens_per_delta) {
  Deltas deltas;
  for (const v1::GenerateResponse& response : responses) {
    const v1::TokenDelta& delta = response.token_delta();
    EXPECT_TRUE(delta.tokens_size() > 0 || !delta.text().empty());
    if (tokens_per_delta > 0) {
      EXPECT_LE(static_cast<uint32_t>(delta.tokens_size()), tokens_per_delta);
    }
    Append(deltas.text, delta.is_reasoning(), delta.text());
    for (const v1::TokenInfo& token : delta.tokens()) {
      deltas.tokens.emplace_back(delta.is_reasoning(), token.token_id());
    }
  }
  return deltas;
}

// The formula: looks for marks in the whole output, one symbol after the other. A token that is not
// shown is a symbol of its own, so that no mark goes across it.
struct Formula {
  std::vector<int> symbols;                        // bytes, or -1 - token
  std::vector<std::pair<int32_t, size_t>> tokens;  // and their first symbols
  std::vector<bool> thinking;                      // of symbols

  bool Matches(size_t at, const std::string& mark) const {
    if (at + mark.size() > symbols.size()) return false;
    return std::equal(mark.begin(), mark.end(), symbols.begin() + static_cast<int64_t>(at),
                      [](char c, int symbol) { return symbol == static_cast<uint8_t>(c); });
  }

  void Scan(const ThinkingMarks& marks, bool inside) {
    thinking.assign(symbols.size(), false);
    for (size_t i = 0; i < symbols.size();) {
      size_t length = 1;
      bool flips = false;
      if (marks.ids.has_value()) {
        const auto token = std::find_if(tokens.begin(), tokens.end(),
                                        [&](const auto& entry) { return entry.second == i; });
        if (token != tokens.end()) {
          const int32_t wanted = inside ? marks.ids->close : marks.ids->open;
          flips = token->first == wanted;
          const size_t end = token + 1 == tokens.end() ? symbols.size() : (token + 1)->second;
          length = end - i;
        }
      } else {
        const std::string& mark = inside ? marks.close : marks.open;
        flips = Matches(i, mark);
        if (flips) length = mark.size();
      }
      std::fill_n(thinking.begin() + static_cast<int64_t>(i), length, inside || flips);
      if (flips) inside = !inside;
      i += length;
    }
  }
};

class ThinkingDeltasTest : public ::testing::Test {
 protected:
  void Use(bool mark_tokens, TokenKind mark_kind = TokenKind::kAdded) {
    tokenizer_ = MakeTokenizer(Vocabulary(mark_tokens, mark_kind));
    marks_ = FindThinkingMarks(*tokenizer_);
    ASSERT_TRUE(marks_.has_value());
    ASSERT_EQ(marks_->ids.has_value(), mark_tokens);
  }

  // All visible as it comes.
  std::vector<OutputToken> Output(const std::vector<int32_t>& ids) const {
    std::vector<OutputToken> tokens;
    uint64_t bytes = 0;
    for (const int32_t id : ids) {
      OutputToken token;
      token.scored.token = id;
      token.shown = !tokenizer_->IsSpecial(id);
      if (token.shown) bytes += tokenizer_->TokenBytes(id).size();
      token.visible_bytes = bytes;
      tokens.push_back(token);
    }
    return tokens;
  }

  // The deltas of tokens that come one by one.
  Deltas Build(const std::vector<OutputToken>& tokens, uint32_t tokens_per_delta, bool show_rest,
               bool begins_thinking) const {
    DeltaBuilder builder(tokenizer_.get(), tokens_per_delta, &*marks_, begins_thinking);
    std::vector<v1::GenerateResponse> out;
    for (const OutputToken& token : tokens) builder.Add({token}, &out);
    builder.Finish(show_rest, &out);
    Deltas deltas = Read(out, tokens_per_delta);
    deltas.reasoning_tokens = builder.reasoning_tokens();
    return deltas;
  }

  Deltas BuildText(const std::string& text, uint32_t tokens_per_delta = 1,
                   bool begins_thinking = false) const {
    const auto ids = tokenizer_->Encode(text, Tokenizer::SpecialTokens::kAsText);
    return Build(Output(ids), tokens_per_delta, true, begins_thinking);
  }

  // Byte by byte what the formula says, cut at `visible` bytes.
  Deltas Expected(const std::vector<OutputToken>& output, uint64_t visible, bool inside) const {
    Formula formula;
    for (const OutputToken& token : output) {
      const int32_t id = token.scored.token;
      formula.tokens.emplace_back(id, formula.symbols.size());
      if (!token.shown) formula.symbols.push_back(-1 - id);
      if (token.shown) {
        for (const char c : tokenizer_->TokenBytes(id)) {
          formula.symbols.push_back(static_cast<uint8_t>(c));
        }
      }
    }
    formula.Scan(*marks_, inside);
    Deltas deltas;
    for (const auto& [id, first] : formula.tokens) {
      deltas.tokens.emplace_back(formula.thinking[first], id);
      if (formula.thinking[first]) ++deltas.reasoning_tokens;
    }
    Detokenizer detokenizer(tokenizer_.get());
    bool last = false;
    uint64_t bytes = 0;
    for (size_t i = 0; i < formula.symbols.size() && bytes < visible; ++i) {
      if (formula.symbols[i] < 0) continue;
      ++bytes;
      last = formula.thinking[i];
      Append(deltas.text, last,
             detokenizer.AppendBytes(std::string(1, static_cast<char>(formula.symbols[i]))));
    }
    Append(deltas.text, last, detokenizer.Flush());
    return deltas;
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  std::optional<ThinkingMarks> marks_;
};

TEST_F(ThinkingDeltasTest, SectionsOfTextThatComesByteByByte) {
  Use(/*mark_tokens=*/false);
  for (const uint32_t per_delta : {0u, 1u, 3u}) {
    const Deltas deltas = BuildText("<think>\nHm.\n</think>\n\nYes <b>.", per_delta);
    EXPECT_THAT(deltas.text,
                ElementsAre(Pair(true, "<think>\nHm.\n</think>"), Pair(false, "\n\nYes <b>.")));
    EXPECT_EQ(deltas.reasoning_tokens, 20u);
  }
  EXPECT_THAT(BuildText("no </think> here", 1).text, ElementsAre(Pair(false, "no </think> here")));
  EXPECT_THAT(BuildText("goes on</think>!", 0, /*begins_thinking=*/true).text,
              ElementsAre(Pair(true, "goes on</think>"), Pair(false, "!")));
  EXPECT_THAT(BuildText("never ends <think", 1).text,
              ElementsAre(Pair(false, "never ends <think")));
}

TEST_F(ThinkingDeltasTest, ATokenAcrossASectionsEndIsSplitInTextAlone) {
  Use(/*mark_tokens=*/false);
  const int32_t both = kFirstPiece + 6;  // "a <think>b"
  const Deltas deltas = Build(Output({both, 'c'}), 1, true, false);
  EXPECT_THAT(deltas.tokens, ElementsAre(Pair(false, both), Pair(true, 'c')));
  EXPECT_THAT(deltas.text, ElementsAre(Pair(false, "a "), Pair(true, "<think>bc")));
  EXPECT_EQ(deltas.reasoning_tokens, 1u);
}

// What a stop string holds back comes late, but in its own section.
TEST_F(ThinkingDeltasTest, HeldBackTextStaysInItsSection) {
  Use(/*mark_tokens=*/true);
  std::vector<OutputToken> tokens = Output({marks_->ids->open, 'a', marks_->ids->close, 'b', 'c'});
  for (int i = 1; i < 4; ++i) tokens[i].visible_bytes = 7;
  const Deltas deltas = Build(tokens, 1, false, false);
  EXPECT_THAT(deltas.text, ElementsAre(Pair(true, "<think>a</think>"), Pair(false, "bc")));
  EXPECT_THAT(deltas.tokens,
              ElementsAre(Pair(true, marks_->ids->open), Pair(true, 'a'),
                          Pair(true, marks_->ids->close), Pair(false, 'b'), Pair(false, 'c')));
}

TEST_F(ThinkingDeltasTest, MarksThatAreNotShownCount) {
  Use(/*mark_tokens=*/true, TokenKind::kSpecial);
  const auto [open, close] = *marks_->ids;
  const Deltas deltas = Build(Output({open, close, open, 'a', close, 'b'}), 0, true, false);
  EXPECT_THAT(deltas.text, ElementsAre(Pair(true, "a"), Pair(false, "b")));
  EXPECT_EQ(deltas.reasoning_tokens, 5u);
}

TEST_F(ThinkingDeltasTest, AreTheFormulasForAnyTokensAndAnyStops) {
  std::mt19937 random(::swaa::testing::Seed());
  const auto draw = [&](int count) {
    return std::uniform_int_distribution<int>(0, count - 1)(random);
  };
  for (int round = 0; round < 3000; ++round) {
    if (round % 100 == 0)
      Use(round % 200 == 0, draw(2) == 0 ? TokenKind::kAdded : TokenKind::kSpecial);
    std::vector<int32_t> ids;
    const int pieces = static_cast<int>(Pieces().size()) + (marks_->ids.has_value() ? 2 : 0);
    for (int left = draw(40); left > 0; --left) {
      ids.push_back(draw(3) == 0 ? "<think>/ \xc3\xa9"[draw(11)] & 0xff
                                 : kFirstPiece + draw(pieces));
    }
    std::vector<OutputToken> output = Output(ids);
    uint64_t visible = 0;
    for (OutputToken& token : output) {
      if (draw(4) != 0) {
        visible = std::max<uint64_t>(
            visible, token.visible_bytes - std::min<uint64_t>(token.visible_bytes, draw(9)));
      }
      token.visible_bytes = visible;
    }
    const bool show_rest = draw(2) == 0;
    const bool begins_thinking = draw(2) == 0;
    const Deltas got = Build(output, static_cast<uint32_t>(draw(4)), show_rest, begins_thinking);
    const Deltas expected = Expected(output, show_rest ? UINT64_MAX : visible, begins_thinking);
    ASSERT_EQ(got.tokens, expected.tokens) << "round " << round;
    ASSERT_EQ(got.text, expected.text) << "round " << round;
    ASSERT_EQ(got.reasoning_tokens, expected.reasoning_tokens) << "round " << round;
  }
}

}  // namespace
}  // namespace swaa::server
