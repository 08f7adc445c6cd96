// The marks that a chat template puts around messages.

#include "engine/tokenizer/chat_marks.h"

#include <algorithm>
#include <vector>

namespace swaa {
namespace {

constexpr size_t kMaxMarkBytes = 64;

bool IsUpperName(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '/';
  });
}

// Whether text that spells the token out becomes it.
bool IsReachable(int32_t id, const Tokenizer& tokenizer) {
  const std::vector<int32_t> ids =
      tokenizer.Encode(tokenizer.TokenBytes(id), Tokenizer::SpecialTokens::kAsText);
  return ids.size() == 1 && ids[0] == id;
}

}  // namespace

void CollectMarks(std::string_view text, std::set<std::string>& marks) {
  for (size_t begin = text.find_first_of("<["); begin != std::string_view::npos;
       begin = text.find_first_of("<[", begin + 1)) {
    const bool is_angle = text[begin] == '<';
    const size_t end = text.find_first_of(is_angle ? "> \n<" : "] \n[", begin + 1);
    if (end == std::string_view::npos || text[end] != (is_angle ? '>' : ']')) continue;
    const std::string_view mark = text.substr(begin, end + 1 - begin);
    const std::string_view name = mark.substr(1, mark.size() - 2);
    if (name.empty() || mark.size() > kMaxMarkBytes || (!is_angle && !IsUpperName(name))) continue;
    marks.emplace(mark);
  }
}

std::optional<std::string> MistypedMark(const std::set<std::string>& marks,
                                        const Tokenizer& tokenizer) {
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const std::string_view bytes = tokenizer.TokenBytes(id);
    if (bytes.size() < 3 || (bytes[0] != '<' && bytes[0] != '[')) continue;
    const std::string text(bytes);
    if (!marks.contains(text) || tokenizer.SpecialTokenId(text).has_value()) continue;
    if (!IsReachable(id, tokenizer)) return text;
  }
  return std::nullopt;
}

std::optional<std::string> MissingMark(const std::set<std::string>& marks,
                                       const Tokenizer& tokenizer) {
  for (const std::string& mark : marks) {
    const bool has_bars = mark.starts_with("<|") && mark.ends_with("|>");
    if (has_bars && !tokenizer.SpecialTokenId(mark).has_value()) return mark;
  }
  return std::nullopt;
}

std::optional<int32_t> LeadingToken(std::string_view text, const Tokenizer& tokenizer) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t\r\n"), text.size()));
  std::optional<int32_t> leading;
  tokenizer.Encode(text, [&](int32_t id, size_t begin, size_t) {
    if (begin == 0) leading = id;
    return false;
  });
  return leading;
}

}  // namespace swaa
