// White space and word characters are Unicode's, as in the regular expressions of Rust's crate.

#include "engine/tokenizer/literal_splitter.h"

#include <algorithm>
#include <utf8proc.h>

#include "engine/tokenizer/utf8.h"

namespace swaa {
namespace {

// Unicode's White_Space.
bool IsSpace(char32_t c) {
  return (c >= 0x9 && c <= 0xD) || c == ' ' || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

// Alphabetic, marks, decimal numbers, connectors and the two joiners (UTS 18's \w).
bool IsWord(char32_t c) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      break;
  }
  const bool is_joiner = c == 0x200C || c == 0x200D;
  // Letters in circles and squares, which are symbols by their category.
  return is_joiner || (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
         (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
}

using Kind = bool (*)(char32_t);

// Bytes of the characters of a kind that text begins with.
size_t LeadingBytes(std::string_view text, Kind is_kind) {
  size_t at = 0;
  while (at < text.size()) {
    const Utf8Unit unit = FirstUtf8Unit(text.substr(at));
    if (unit.kind != Utf8Unit::Kind::kCharacter) break;
    if (!is_kind(DecodeUtf8(text.substr(at, unit.length)))) break;
    at += unit.length;
  }
  return at;
}

// The last character of text that is not empty; none where its bytes are not whole.
std::string_view LastCharacter(std::string_view text) {
  size_t begin = text.size() - 1;
  while (begin > 0 && (static_cast<uint8_t>(text[begin]) & 0xC0) == 0x80) --begin;
  const std::string_view last = text.substr(begin);
  const Utf8Unit unit = FirstUtf8Unit(last);
  const bool whole = unit.kind == Utf8Unit::Kind::kCharacter && unit.length == last.size();
  return whole ? last : std::string_view();
}

bool EndsWith(std::string_view text, Kind is_kind) {
  const std::string_view last = text.empty() ? text : LastCharacter(text);
  return !last.empty() && is_kind(DecodeUtf8(last));
}

bool BeginsWith(std::string_view text, Kind is_kind) {
  const Utf8Unit unit = text.empty() ? Utf8Unit{Utf8Unit::Kind::kInvalid, 0} : FirstUtf8Unit(text);
  return unit.kind == Utf8Unit::Kind::kCharacter &&
         is_kind(DecodeUtf8(text.substr(0, unit.length)));
}

size_t TrailingSpaceBytes(std::string_view text) {
  const size_t size = text.size();
  while (EndsWith(text, IsSpace)) text.remove_suffix(LastCharacter(text).size());
  return size - text.size();
}

}  // namespace

void LiteralSplitter::Add(std::string_view literal, int32_t token, const LiteralOptions& options) {
  matcher_.Add(literal, token);
  if (options != LiteralOptions()) options_.emplace(token, options);
  empty_ = false;
}

void LiteralSplitter::Split(std::string_view text,
                            absl::FunctionRef<bool(const LiteralMatcher::Match&)> accepts,
                            absl::FunctionRef<void(std::string_view)> on_text,
                            absl::FunctionRef<void(int32_t)> on_token) const {
  size_t done = 0;  // all before it was visited, or eaten by a literal
  size_t from = 0;  // where the next literal may begin
  while (const auto match = matcher_.Find(text, from, accepts)) {
    size_t begin = match->begin;
    size_t end = begin + match->length;
    from = end;
    const auto found = options_.find(match->token);
    const LiteralOptions options = found == options_.end() ? LiteralOptions() : found->second;
    if (options.single_word &&
        (EndsWith(text.substr(0, begin), IsWord) || BeginsWith(text.substr(end), IsWord))) {
      continue;
    }
    if (options.lstrip && begin > done) {
      begin -= TrailingSpaceBytes(text.substr(done, begin - done));
    }
    if (options.rstrip) end += LeadingBytes(text.substr(end), IsSpace);
    if (begin > done) on_text(text.substr(done, begin - done));
    on_token(match->token);
    done = end;
  }
  if (done < text.size()) on_text(text.substr(done));
}

}  // namespace swaa
