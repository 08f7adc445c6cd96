// Finds literal tokens in text.

#include "engine/tokenizer/literal_matcher.h"

#include "base/check.h"

namespace swaa {
namespace {

uint64_t EdgeKey(uint32_t node, char byte) {
  return uint64_t{node} << 8 | static_cast<uint8_t>(byte);
}

}  // namespace

void LiteralMatcher::Add(std::string_view literal, int32_t token) {
  SWAA_CHECK(!literal.empty()) << "token " << token << " is empty";
  begins_[static_cast<uint8_t>(literal[0])] = true;
  uint32_t node = 0;
  for (const char byte : literal) {
    const auto [edge, is_new] =
        children_.try_emplace(EdgeKey(node, byte), static_cast<uint32_t>(node_token_.size()));
    if (is_new) node_token_.push_back(-1);
    node = edge->second;
  }
  if (node_token_[node] < 0) node_token_[node] = token;
}

uint32_t LiteralMatcher::Child(uint32_t node, char byte) const {
  const auto edge = children_.find(EdgeKey(node, byte));
  return edge == children_.end() ? 0 : edge->second;
}

std::optional<LiteralMatcher::Match> LiteralMatcher::Find(
    std::string_view text, size_t from, absl::FunctionRef<bool(const Match&)> accepts) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (!begins_[static_cast<uint8_t>(text[begin])]) continue;
    std::optional<Match> longest;
    uint32_t node = 0;
    for (size_t end = begin; end < text.size(); ++end) {
      node = Child(node, text[end]);
      if (node == 0) break;
      if (node_token_[node] < 0) continue;
      const Match match = {begin, end + 1 - begin, node_token_[node]};
      if (accepts(match)) longest = match;
    }
    if (longest.has_value()) return longest;
  }
  return std::nullopt;
}

std::optional<int32_t> LiteralMatcher::Lookup(std::string_view text) const {
  if (text.empty()) return std::nullopt;
  uint32_t node = 0;
  for (const char byte : text) {
    node = Child(node, byte);
    if (node == 0) return std::nullopt;
  }
  if (node_token_[node] < 0) return std::nullopt;
  return node_token_[node];
}

}  // namespace swaa
