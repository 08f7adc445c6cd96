// Tests: stop strings against a naive search over the whole output.

#include "engine/sampling/stop_matcher.h"

#include <random>

#include <gtest/gtest.h>

namespace swaa {
namespace {

TEST(StopMatcherTest, FindsAcrossTokens) {
  StopMatcher matcher({"<end>"});
  EXPECT_FALSE(matcher.Append("one <e").has_value());
  EXPECT_EQ(matcher.held_back_bytes(), 2u);
  EXPECT_FALSE(matcher.Append("nd").has_value());
  EXPECT_EQ(matcher.held_back_bytes(), 4u);
  const auto match = matcher.Append("> two");
  ASSERT_TRUE(match.has_value());
  EXPECT_EQ(match->string_index, 0u);
  EXPECT_EQ(match->begin, 4u);
}

TEST(StopMatcherTest, EarliestEndThenLongest) {
  StopMatcher matcher({"bc", "abc", "d", "abcd"});
  const auto match = matcher.Append("xabcd");
  ASSERT_TRUE(match.has_value());
  EXPECT_EQ(match->string_index, 1u);
  EXPECT_EQ(match->begin, 1u);
}

TEST(StopMatcherTest, HoldsNothingBackWhenThePrefixBreaks) {
  StopMatcher matcher({"aab"});
  matcher.Append("aa");
  EXPECT_EQ(matcher.held_back_bytes(), 2u);
  matcher.Append("a");
  EXPECT_EQ(matcher.held_back_bytes(), 2u);
  matcher.Append("c");
  EXPECT_EQ(matcher.held_back_bytes(), 0u);
}

TEST(StopMatcherTest, NoStopStrings) {
  StopMatcher matcher({});
  EXPECT_FALSE(matcher.Append("text").has_value());
  EXPECT_EQ(matcher.held_back_bytes(), 0u);
}

// The match that a reader of the whole output finds: by end, then by length, among those ending
// after `seen` bytes.
std::optional<StopMatcher::Match> NaiveMatch(const std::string& output, size_t seen,
                                             const std::vector<std::string>& strings) {
  for (size_t end = seen + 1; end <= output.size(); ++end) {
    std::optional<StopMatcher::Match> match;
    for (size_t i = 0; i < strings.size(); ++i) {
      const size_t length = strings[i].size();
      if (length > end || output.compare(end - length, length, strings[i]) != 0) continue;
      if (!match.has_value() || end - length < match->begin) match = {i, end - length};
    }
    if (match.has_value()) return match;
  }
  return std::nullopt;
}

size_t NaiveHeldBack(const std::string& output, const std::vector<std::string>& strings) {
  size_t longest = 0;
  for (const std::string& text : strings) {
    for (size_t length = 1; length < text.size() && length <= output.size(); ++length) {
      if (output.ends_with(text.substr(0, length))) longest = std::max(longest, length);
    }
  }
  return longest;
}

TEST(StopMatcherTest, AgreesWithNaiveSearch) {
  for (uint32_t seed = 0; seed < 3000; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    const auto text = [&](size_t longest, size_t shortest) {
      std::string s(shortest + random() % (longest - shortest + 1), 'a');
      for (char& c : s) c = static_cast<char>('a' + random() % 2);
      return s;
    };
    std::vector<std::string> strings(1 + random() % 4);
    for (std::string& s : strings) s = text(6, 1);
    StopMatcher matcher(strings);
    std::string output;
    for (int step = 0; step < 12; ++step) {
      const std::string bytes = text(4, 0);
      const size_t seen = output.size();
      output += bytes;
      const auto got = matcher.Append(bytes);
      const auto want = NaiveMatch(output, seen, strings);
      ASSERT_EQ(got.has_value(), want.has_value());
      if (got.has_value()) {
        ASSERT_EQ(got->string_index, want->string_index);
        ASSERT_EQ(got->begin, want->begin);
      }
      ASSERT_EQ(matcher.held_back_bytes(), NaiveHeldBack(output, strings));
    }
  }
}

TEST(StopMatcherTest, RepetitiveStopStringsHoldBackAllButOneByte) {
  std::vector<std::string> strings(16, std::string(1023, 'a') + "b");
  StopMatcher matcher(strings);
  const std::string bytes(1 << 20, 'a');
  EXPECT_FALSE(matcher.Append(bytes).has_value());
  EXPECT_EQ(matcher.held_back_bytes(), 1023u);
}

}  // namespace
}  // namespace swaa
