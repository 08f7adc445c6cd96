// Tests: byte-level BPE against naive merging, literals, broken input, and the time that long input
// takes.

#include "engine/tokenizer/tokenizer.h"

#include <algorithm>
#include <ctime>
#include <random>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tokenizer/bpe.h"
#include "engine/tokenizer/normalize.h"
#include "tests/unit/tokenizer/test_tokenizers.h"

namespace swaa {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
constexpr auto kParse = Tokenizer::SpecialTokens::kParse;
constexpr auto kAsText = Tokenizer::SpecialTokens::kAsText;

// Of this thread's work, whatever else the machine does.
double Seconds(const std::function<void()>& body) {
  const auto now = [] {
    timespec time = {};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  };
  const double start = now();
  body();
  return now() - start;
}

std::string Bytes(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  std::string bytes;
  for (const int32_t id : ids) bytes += tokenizer.TokenBytes(id);
  return bytes;
}

// Merging as it is defined: the pair of the lowest rank, the leftmost of it, again and again.
TEST(BpeTest, AgreesWithNaiveMerging) {
  for (uint32_t seed = 0; seed < 400; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    std::array<int32_t, 256> byte_tokens;
    byte_tokens.fill(-1);
    for (int i = 0; i < 3; ++i) byte_tokens['a' + i] = i;
    Bpe bpe(byte_tokens);
    std::vector<std::array<int32_t, 3>> merges;
    int32_t tokens = 3;
    for (int i = 0; i < 12; ++i) {
      const int32_t left = static_cast<int32_t>(random() % tokens);
      const int32_t right = static_cast<int32_t>(random() % tokens);
      const auto is_same = [&](const auto& m) { return m[0] == left && m[1] == right; };
      if (std::any_of(merges.begin(), merges.end(), is_same)) continue;
      merges.push_back({left, right, tokens});
      bpe.AddMerge(left, right, tokens++);
    }
    std::string piece(random() % 150, ' ');
    for (char& c : piece) c = static_cast<char>('a' + random() % 4);  // 'd' is no token
    std::vector<int32_t> want;
    for (const char c : piece) {
      if (c != 'd') want.push_back(c - 'a');
    }
    for (bool merged = true; merged;) {
      merged = false;
      for (const auto& [left, right, result] : merges) {
        for (size_t i = 0; i + 1 < want.size() && !merged; ++i) {
          if (want[i] != left || want[i + 1] != right) continue;
          want[i] = result;
          want.erase(want.begin() + static_cast<ptrdiff_t>(i) + 1);
          merged = true;
        }
        if (merged) break;
      }
    }
    std::vector<int32_t> got;
    bpe.Encode(piece, got);
    ASSERT_EQ(got, want) << piece;
  }
}

TEST(TokenizerTest, LiteralsLeftmostThenLongest) {
  const auto tokenizer = MakeTokenizer(ByteData({}, {"<a>", "<a><b>", "<b>"}));
  EXPECT_THAT(tokenizer->Encode("x<a>y", kParse), ElementsAre('x', 256, 'y'));
  EXPECT_THAT(tokenizer->Encode("<a><b><b><a>", kParse), ElementsAre(257, 258, 256));
  EXPECT_THAT(tokenizer->Encode("<a<b>", kParse), ElementsAre('<', 'a', 258));
  EXPECT_THAT(tokenizer->Encode("<a>", kAsText), ElementsAre('<', 'a', '>'));
  EXPECT_EQ(tokenizer->SpecialTokenId("<a>"), 256);
  EXPECT_EQ(tokenizer->SpecialTokenId("<a"), std::nullopt);
  EXPECT_EQ(tokenizer->SpecialTokenId(""), std::nullopt);
  EXPECT_TRUE(tokenizer->IsSpecial(256));
  EXPECT_FALSE(tokenizer->IsSpecial('x'));
  EXPECT_EQ(tokenizer->TokenBytes(257), "<a><b>");
}

TEST(TokenizerTest, AddedTokensAreParsedButNotSpecial) {
  TokenizerData data = ByteData({}, {"<think>", "<end>"});
  data.kinds[256] = TokenKind::kAdded;
  data.tokens.push_back("unused");
  data.kinds.push_back(TokenKind::kUnused);
  const auto tokenizer = MakeTokenizer(data);
  EXPECT_THAT(tokenizer->Encode("<think>a<end>", kParse), ElementsAre(256, 'a', 257));
  EXPECT_EQ(tokenizer->Encode("<think>a<end>", kAsText).size(), 13u);
  EXPECT_FALSE(tokenizer->IsSpecial(256));
  EXPECT_EQ(tokenizer->SpecialTokenId("<think>"), 256);
  EXPECT_EQ(tokenizer->TokenBytes(258), "");
  EXPECT_EQ(tokenizer->SpecialTokenId("unused"), std::nullopt);
  EXPECT_EQ(tokenizer->vocab_size(), 259);
}

TEST(TokenizerTest, IgnoreMergesTakesWholeWords) {
  TokenizerData data = ByteData({{"a", "b"}}, {});
  data.tokens.push_back("abc");  // no merges lead to it
  data.kinds.push_back(TokenKind::kNormal);
  data.pre_tokenizer = PreTokenizer::kLlamaBpe;
  EXPECT_THAT(MakeTokenizer(data)->Encode("abc", kParse), ElementsAre(256, 'c'));
  data.ignore_merges = true;
  EXPECT_THAT(MakeTokenizer(data)->Encode("abc", kParse), ElementsAre(257));
}

TEST(TokenizerTest, BrokenUtf8KeepsEveryByte) {
  for (const std::string name : {"llama3_tiny", "qwen2_tiny", "smollm"}) {
    TokenizerData data = name == "smollm" ? ByteData({{"a", "a"}}, {}) : TinyData(name);
    data.normalize_nfc = false;  // it changes characters of its own right
    const auto tokenizer = MakeTokenizer(std::move(data));
    for (uint32_t seed = 0; seed < 300; ++seed) {
      std::mt19937 random(seed);
      std::string text(random() % 60, ' ');
      for (char& c : text) {
        constexpr char kBytes[] = "a 1\n\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\xFF\xC0\xED";
        c = kBytes[random() % (sizeof(kBytes) - 1)];
      }
      const std::vector<int32_t> ids = tokenizer->Encode(text, kParse);
      ASSERT_EQ(Bytes(*tokenizer, ids), text) << name << " seed " << seed;
    }
  }
  // What surrounds a broken byte is split as if it stood alone.
  const auto tokenizer = MakeTokenizer(ByteData({{"a", "b"}}, {}));
  EXPECT_THAT(tokenizer->Encode("ab\xFF"
                                "ab\xE2\x82",
                                kParse),
              ElementsAre(256, 255, 256, 0xE2, 0x82));
}

TEST(TokenizerTest, BytesThatTheVocabularyLacksLeaveNoTrace) {
  TokenizerData data = ByteData({{"a", "b"}}, {});
  data.kinds[0] = TokenKind::kUnused;
  const auto tokenizer = MakeTokenizer(data);
  EXPECT_TRUE(tokenizer->Encode(std::string(3, '\0'), kParse).empty());
}

TEST(TokenizerTest, InconsistentDataIsRefused) {
  struct Case {
    std::function<void(TokenizerData&)> change;
    std::string message;
  };
  const std::vector<Case> cases = {
      {[](auto& d) { d.merges.emplace_back("a", "zz"); },
       "merge 1, \"a\" \"zz\": \"zz\" is no token"},
      {[](auto& d) { d.merges.emplace_back("b", "a"); },
       "merge 1, \"b\" \"a\": \"ba\" is no token"},
      {[](auto& d) { d.kinds.pop_back(); }, "258 tokens but 257 token kinds"},
      {[](auto& d) { d.bos_id = 258; }, "beginning-of-sequence token id 258"},
      {[](auto& d) { d.eos_ids = {-1}; }, "end token id -1"},
      {[](auto& d) { d.add_bos = true; }, "none is named"},
      {[](auto& d) { d.tokens[5] = d.tokens[6]; }, "tokens 5 and 6 have the same text"},
      {[](auto& d) { d = {}; }, "a vocabulary of 0 tokens"},
  };
  for (const Case& c : cases) {
    TokenizerData data = ByteData({{"a", "b"}}, {"<s>"});
    c.change(data);
    const auto tokenizer = Tokenizer::Create(data);
    ASSERT_FALSE(tokenizer.ok()) << c.message;
    EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr(c.message));
  }
}

TEST(TokenizerTest, ManyThreadsGetTheSameTokens) {
  const auto tokenizer = MakeTokenizer(TinyData("llama3_tiny"));
  const std::string text = "It's 12345 naïve 日本語 words.\n\n  <|eot_id|> and more";
  const std::vector<int32_t> want = tokenizer->Encode(text, kParse);
  std::vector<int> wrong(8, 0);
  std::vector<std::thread> threads;
  for (int& count : wrong) {
    threads.emplace_back([&] {
      for (int i = 0; i < 500; ++i) count += tokenizer->Encode(text, kParse) != want;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(wrong, testing::Each(0));
}

// Doubling the input must not quadruple the time, whatever it repeats. Bounds are wide for busy
// machines; a quadratic algorithm takes tens of seconds at this size.
TEST(TokenizerSpeedTest, LongInputTakesLinearTime) {
  constexpr size_t kBytes = 1 << 18;
  const std::vector<std::string> units = {"a",         " ",
                                          "\n",        "\n ",
                                          "1",         "<",
                                          "<|",        "\xFF",
                                          "é\xC3",     "e\xCC\x81\xCC\xA3",
                                          "'s",        "<|im_start|>",
                                          "!",         "a ",
                                          " \xC2\xA0", "日",
                                          "\r\n\t",    "ab cd, "};
  for (const std::string name : {"llama3_tiny", "qwen2_tiny", "smollm"}) {
    const auto tokenizer = MakeTokenizer(
        name == "smollm" ? ByteData({{"a", "a"}, {"aa", "aa"}}, {"<|im_start|>"}) : TinyData(name));
    for (const std::string& unit : units) {
      std::string text;
      while (text.size() < kBytes) text += unit;
      const double seconds = Seconds([&] { tokenizer->Encode(text, kParse); });
      EXPECT_LT(seconds, 5) << name << " " << testing::PrintToString(unit);
    }
    std::string spaces(kBytes, ' ');
    EXPECT_LT(Seconds([&] { tokenizer->Encode(spaces + "x", kParse); }), 5);
  }
}

TEST(NormalizeTest, NfcAndItsLimit) {
  EXPECT_EQ(NormalizeNfc("e\xCC\x81"), "é");
  EXPECT_EQ(NormalizeNfc("\xE2\x84\xAB"), "Å");  // the angstrom sign
  EXPECT_EQ(NormalizeNfc("plain"), "plain");
  EXPECT_EQ(NormalizeNfc(""), "");
  // Marks sort by their class, but to Unicode 9's tables U+08D3 (2018) is none.
  EXPECT_EQ(NormalizeNfc("q\xCC\x87\xCC\xA3"), "q\xCC\xA3\xCC\x87");
  EXPECT_EQ(NormalizeNfc("q\xCC\x87\xE0\xA3\x93"), "q\xCC\x87\xE0\xA3\x93");
  EXPECT_EQ(NormalizeNfc("e\xE0\xA3\x93\xCC\x81"), "e\xE0\xA3\x93\xCC\x81");
  // Marks in the wrong order: sorted within parts, in time that does not explode.
  std::string marks = "a";
  for (int i = 0; i < 200000; ++i) marks += "\xCC\x81";  // class 230
  for (int i = 0; i < 200000; ++i) marks += "\xCC\xA3";  // class 220
  EXPECT_LT(Seconds([&] { EXPECT_EQ(NormalizeNfc(marks).size(), marks.size() - 1); }), 5);
}

}  // namespace
}  // namespace swaa
