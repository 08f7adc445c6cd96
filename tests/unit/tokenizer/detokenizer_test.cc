// Tests: streams of tokens become whole UTF-8, whatever the cuts.

#include "engine/tokenizer/detokenizer.h"

#include <random>

#include <gtest/gtest.h>

#include "engine/tokenizer/utf8.h"
#include "tests/unit/tokenizer/test_tokenizers.h"

namespace swaa {
namespace {

TEST(DetokenizerTest, WaitsForWholeCharacters) {
  const auto tokenizer = MakeTokenizer(ByteData({}, {"<end>"}));
  Detokenizer detokenizer(tokenizer.get());
  EXPECT_EQ(detokenizer.Append('a'), "a");
  EXPECT_EQ(detokenizer.Append(0xE2), "");
  EXPECT_EQ(detokenizer.Append(0x82), "");
  EXPECT_EQ(detokenizer.Append(256), "");  // special: not shown, the character goes on
  EXPECT_EQ(detokenizer.Append(0xAC), "€");
  EXPECT_EQ(detokenizer.Append(0xF0), "");
  EXPECT_EQ(detokenizer.Append('b'), "\uFFFDb");
  EXPECT_EQ(detokenizer.Append(0xF0), "");
  EXPECT_EQ(detokenizer.Append(0x9F), "");
  EXPECT_EQ(detokenizer.Flush(), "\uFFFD");
  EXPECT_EQ(detokenizer.Flush(), "");
}

TEST(DetokenizerTest, ShowsSpecialTokensWhenAsked) {
  TokenizerData data = ByteData({}, {"<end>", "<think>"});
  data.kinds[257] = TokenKind::kAdded;
  const auto tokenizer = MakeTokenizer(data);
  Detokenizer detokenizer(tokenizer.get());
  EXPECT_EQ(detokenizer.Append(256), "");
  EXPECT_EQ(detokenizer.Append(256, /*show_special=*/true), "<end>");
  EXPECT_EQ(detokenizer.Append(257), "<think>");
  EXPECT_EQ(detokenizer.Append(0xC3), "");
  EXPECT_EQ(detokenizer.Append(256, /*show_special=*/true), "\uFFFD<end>");
}

TEST(DetokenizerTest, CutsDoNotMatter) {
  const auto tokenizer = MakeTokenizer(TinyData("qwen2_tiny"));
  const std::string text =
      "Grüße, 日本語, 😀👍🏽 and naïve façades; 안녕 नमस्ते e\u0301";
  for (uint32_t seed = 0; seed < 200; ++seed) {
    std::mt19937 random(seed);
    // Parts of the text encoded each on its own, cut anywhere, also inside characters.
    std::string shown;
    Detokenizer detokenizer(tokenizer.get());
    for (size_t at = 0; at < text.size();) {
      const size_t length = std::min<size_t>(1 + random() % 5, text.size() - at);
      const std::string part = text.substr(at, length);
      for (const int32_t id : tokenizer->Encode(part, Tokenizer::SpecialTokens::kAsText)) {
        const std::string delta = detokenizer.Append(id);
        ASSERT_EQ(ValidUtf8Prefix(delta), delta.size()) << "seed " << seed;
        shown += delta;
      }
      at += length;
    }
    // The mark at the end may have been composed with its letter: NFC, when both were in one part.
    const std::string end = "e\u0301";
    const std::string composed = text.substr(0, text.size() - end.size()) + "é";
    EXPECT_TRUE(shown == text || shown == composed) << "seed " << seed << ": " << shown;
    EXPECT_EQ(detokenizer.Flush(), "");
  }
}

TEST(Utf8Test, EveryCodePointAndItsNeighbours) {
  for (uint32_t code = 0; code < 0x110000; ++code) {
    if (code >= 0xD800 && code < 0xE000) continue;
    std::string text;
    if (code < 0x80) {
      text = {static_cast<char>(code)};
    } else if (code < 0x800) {
      text = {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
    } else if (code < 0x10000) {
      text = {static_cast<char>(0xE0 | code >> 12), static_cast<char>(0x80 | (code >> 6 & 0x3F)),
              static_cast<char>(0x80 | (code & 0x3F))};
    } else {
      text = {static_cast<char>(0xF0 | code >> 18), static_cast<char>(0x80 | (code >> 12 & 0x3F)),
              static_cast<char>(0x80 | (code >> 6 & 0x3F)),
              static_cast<char>(0x80 | (code & 0x3F))};
    }
    const Utf8Unit unit = FirstUtf8Unit(text + "x");
    ASSERT_EQ(unit.kind, Utf8Unit::Kind::kCharacter) << code;
    ASSERT_EQ(unit.length, text.size()) << code;
    ASSERT_EQ(DecodeUtf8(text), code);
    if (text.size() > 1) {
      ASSERT_EQ(FirstUtf8Unit(text.substr(0, text.size() - 1)).kind, Utf8Unit::Kind::kIncomplete)
          << code;
    }
  }
  for (const std::string broken :
       {"\xED\xA0\x80", "\xC0\x80", "\xE0\x9F\xBF", "\xF4\x90\x80\x80", "\xF5", "\x80"}) {
    EXPECT_EQ(FirstUtf8Unit(broken).kind, Utf8Unit::Kind::kInvalid);
    EXPECT_EQ(FirstUtf8Unit(broken).length, 1u);
  }
}

TEST(Utf8Test, AnyBytesBecomeTextOfAtMostTheSizeAsked) {
  EXPECT_EQ(AsValidUtf8("a\xFFz\xE2\x82"), "a\xEF\xBF\xBDz\xEF\xBF\xBD");
  EXPECT_EQ(AsValidUtf8("aé", 2), "a");
  EXPECT_EQ(AsValidUtf8("aé", 3), "aé");
  EXPECT_EQ(AsValidUtf8("a\xFFz", 3), "a");
  EXPECT_EQ(AsValidUtf8("abc", 0), "");
}

}  // namespace
}  // namespace swaa
