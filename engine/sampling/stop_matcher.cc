// Stop strings.

#include "engine/sampling/stop_matcher.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace swaa {

bool StopMatcher::Pattern::Advance(char byte) {
  while (matched > 0 && text[matched] != byte) matched = border[matched];
  if (text[matched] == byte) ++matched;
  if (matched < text.size()) return false;
  matched = border[matched];
  return true;
}

StopMatcher::StopMatcher(std::vector<std::string> stop_strings) {
  for (std::string& text : stop_strings) {
    SWAA_CHECK(!text.empty()) << "a stop string is empty";
    std::vector<uint32_t> border(text.size() + 1, 0);
    for (size_t i = 1; i < text.size(); ++i) {
      uint32_t length = border[i];
      while (length > 0 && text[length] != text[i]) length = border[length];
      border[i + 1] = text[length] == text[i] ? length + 1 : 0;
    }
    patterns_.push_back({.text = std::move(text), .border = std::move(border)});
  }
}

std::optional<StopMatcher::Match> StopMatcher::Append(std::string_view bytes) {
  std::optional<Match> match;
  for (const char byte : bytes) {
    ++appended_;
    const bool matched_before = match.has_value();
    for (size_t i = 0; i < patterns_.size(); ++i) {
      if (!patterns_[i].Advance(byte) || matched_before) continue;
      const size_t begin = appended_ - patterns_[i].text.size();
      if (!match.has_value() || begin < match->begin) match = Match{i, begin};
    }
  }
  return match;
}

size_t StopMatcher::held_back_bytes() const {
  uint32_t longest = 0;
  for (const Pattern& pattern : patterns_) longest = std::max(longest, pattern.matched);
  return longest;
}

}  // namespace swaa
