// Python's functions over text that methods and filters share.

#include "engine/jinja/text_functions.h"

#include <algorithm>
#include <functional>

#include "engine/jinja/operators.h"
#include "engine/jinja/unicode.h"

namespace swaa::jinja {
namespace {

// Appends what becomes of the character at `at`.
using Mapping = std::function<void(size_t at, char32_t character, std::string& out)>;

Text MapCharacters(const Text& text, Budget& budget, const Mapping& map) {
  budget.Take(text.size());
  budget.Step(static_cast<int64_t>(text.size() / 16));
  Text out;
  out.is_markup = text.is_markup;
  size_t at = 0;
  for (const Text::Run& run : text.runs()) {
    std::string mapped;
    for (; at < run.end; at += CharacterLength(text.bytes(), at)) {
      map(at, CharacterAt(text.bytes(), at), mapped);
    }
    out.Append(mapped, run.is_input);
  }
  return out;
}

void AppendLowerAt(const std::string& bytes, size_t at, char32_t character, std::string& out) {
  const std::string_view view = bytes;
  AppendLower(character, view.substr(0, at), view.substr(at + CharacterLength(view, at)), out);
}

std::vector<char32_t> CharactersOf(const std::string& bytes) {
  std::vector<char32_t> characters;
  for (size_t at = 0; at < bytes.size(); at += CharacterLength(bytes, at)) {
    characters.push_back(CharacterAt(bytes, at));
  }
  return characters;
}

// Words between white space, as byte ranges, from the left.
std::vector<std::pair<size_t, size_t>> Words(const std::string& bytes) {
  std::vector<std::pair<size_t, size_t>> words;
  bool in_word = false;
  for (size_t at = 0; at < bytes.size();) {
    const size_t length = CharacterLength(bytes, at);
    if (IsSpace(CharacterAt(bytes, at))) {
      in_word = false;
    } else if (in_word) {
      words.back().second = at + length;
    } else {
      words.emplace_back(at, at + length);
      in_word = true;
    }
    at += length;
  }
  return words;
}

size_t SkipSpaceRight(const std::string& bytes, size_t end) {
  size_t last = 0;
  for (size_t at = 0; at < end; at += CharacterLength(bytes, at)) {
    if (!IsSpace(CharacterAt(bytes, at))) last = at + CharacterLength(bytes, at);
  }
  return last;
}

size_t SkipSpaceLeft(const std::string& bytes, size_t begin) {
  while (begin < bytes.size() && IsSpace(CharacterAt(bytes, begin))) {
    begin += CharacterLength(bytes, begin);
  }
  return begin;
}

std::vector<Value> SplitAtSpace(const Text& text, int64_t limit, bool from_right) {
  const std::string& bytes = text.bytes();
  const std::vector<std::pair<size_t, size_t>> words = Words(bytes);
  const auto count = static_cast<int64_t>(words.size());
  std::vector<Value> parts;
  const auto add = [&](size_t begin, size_t end) {
    parts.push_back(text.Substr(begin, end - begin));
  };
  if (limit < 0 || count <= limit) {
    for (const auto& [begin, end] : words) add(begin, end);
  } else if (!from_right) {
    for (int64_t i = 0; i < limit; ++i) add(words[i].first, words[i].second);
    add(SkipSpaceLeft(bytes, words[limit].first), bytes.size());
  } else {
    const int64_t first = count - limit;
    add(0, SkipSpaceRight(bytes, words[first - 1].second));
    for (int64_t i = first; i < count; ++i) add(words[i].first, words[i].second);
  }
  return parts;
}

std::vector<Value> SplitAtText(const Text& text, const Text& separator, int64_t limit,
                               bool from_right) {
  const std::string& bytes = text.bytes();
  const std::string& mark = separator.bytes();
  if (mark.empty()) Fail("empty separator");
  std::vector<Value> parts;
  if (!from_right) {
    size_t at = 0;
    for (size_t found = bytes.find(mark); found != std::string::npos && limit != 0;
         found = bytes.find(mark, at)) {
      parts.push_back(text.Substr(at, found - at));
      at = found + mark.size();
      --limit;
    }
    parts.push_back(text.Substr(at));
    return parts;
  }
  size_t end = bytes.size();
  while (limit != 0 && end >= mark.size()) {
    const size_t found = bytes.rfind(mark, end - mark.size());
    if (found == std::string::npos) break;
    parts.push_back(text.Substr(found + mark.size(), end - found - mark.size()));
    end = found;
    --limit;
  }
  parts.push_back(text.Substr(0, end));
  std::reverse(parts.begin(), parts.end());
  return parts;
}

}  // namespace

Text Upper(const Text& text, Budget& budget) {
  return MapCharacters(text, budget, [](size_t, char32_t character, std::string& out) {
    AppendUpper(character, out);
  });
}

Text Lower(const Text& text, Budget& budget) {
  return MapCharacters(text, budget, [&](size_t at, char32_t character, std::string& out) {
    AppendLowerAt(text.bytes(), at, character, out);
  });
}

Text Capitalize(const Text& text, Budget& budget) {
  return MapCharacters(text, budget, [&](size_t at, char32_t character, std::string& out) {
    if (at == 0) {
      AppendTitle(character, out);
    } else {
      AppendLowerAt(text.bytes(), at, character, out);
    }
  });
}

Text TitleCase(const Text& text, Budget& budget) {
  bool after_cased = false;
  return MapCharacters(text, budget, [&](size_t at, char32_t character, std::string& out) {
    if (after_cased) {
      AppendLowerAt(text.bytes(), at, character, out);
    } else {
      AppendTitle(character, out);
    }
    std::string upper, lower;
    AppendUpper(character, upper);
    AppendLowerAt(text.bytes(), at, character, lower);
    after_cased = upper != lower;
  });
}

Text Strip(const Text& text, const Text* characters, bool left, bool right) {
  std::vector<char32_t> wanted;
  if (characters != nullptr) wanted = CharactersOf(characters->bytes());
  const auto is_stripped = [&](char32_t character) {
    if (characters == nullptr) return IsSpace(character);
    return std::find(wanted.begin(), wanted.end(), character) != wanted.end();
  };
  const std::string& bytes = text.bytes();
  size_t begin = bytes.size();
  size_t end = 0;
  for (size_t at = 0; at < bytes.size();) {
    const size_t length = CharacterLength(bytes, at);
    if (!is_stripped(CharacterAt(bytes, at))) {
      begin = std::min(begin, at);
      end = at + length;
    }
    at += length;
  }
  if (end == 0) return text.Substr(0, 0);
  if (!left) begin = 0;
  if (!right) end = bytes.size();
  return text.Substr(begin, end - begin);
}

Text Replace(const Text& text, const Text& old_text, const Text& new_text, int64_t limit,
             Budget& budget) {
  const std::string& bytes = text.bytes();
  Text out;
  out.is_markup = text.is_markup;
  size_t at = 0;
  const auto insert = [&] {
    budget.Step();
    budget.Take(new_text.size());
    out.Append(new_text);
    --limit;
  };
  budget.Take(text.size());
  if (old_text.empty()) {  // between all characters
    while (limit != 0) {
      insert();
      if (at == bytes.size()) return out;
      const size_t length = CharacterLength(bytes, at);
      out.Append(text, at, length);
      at += length;
    }
  }
  while (limit != 0 && !old_text.empty()) {
    const size_t found = bytes.find(old_text.bytes(), at);
    if (found == std::string::npos) break;
    out.Append(text, at, found - at);
    insert();
    at = found + old_text.size();
  }
  out.Append(text, at);
  return out;
}

std::vector<Value> Split(const Text& text, const Text* separator, int64_t limit, bool from_right,
                         Budget& budget) {
  std::vector<Value> parts = separator == nullptr
                                 ? SplitAtSpace(text, limit, from_right)
                                 : SplitAtText(text, *separator, limit, from_right);
  budget.Step(static_cast<int64_t>(parts.size() + text.size() / 64));
  budget.Take(text.size() + parts.size() * sizeof(Text));
  return parts;
}

std::vector<Value> SplitLines(const Text& text, bool keep_ends, Budget& budget) {
  const std::string& bytes = text.bytes();
  std::vector<Value> lines;
  size_t begin = 0;
  for (size_t at = 0; at < bytes.size();) {
    size_t next = at + CharacterLength(bytes, at);
    if (!IsLineBreak(CharacterAt(bytes, at))) {
      at = next;
      continue;
    }
    if (bytes[at] == '\r' && next < bytes.size() && bytes[next] == '\n') ++next;
    lines.push_back(text.Substr(begin, (keep_ends ? next : at) - begin));
    begin = at = next;
  }
  if (begin < bytes.size()) lines.push_back(text.Substr(begin));
  budget.Step(static_cast<int64_t>(lines.size() + bytes.size() / 64));
  budget.Take(bytes.size() + lines.size() * sizeof(Text));
  return lines;
}

Text Join(const Text& separator, const std::vector<Value>& items, Budget& budget) {
  std::vector<Value> parts;
  const Value between = separator;
  for (const Value& item : items) {
    if (!parts.empty()) parts.push_back(between);
    parts.push_back(item);
  }
  budget.Step(static_cast<int64_t>(parts.size()));
  return Concatenate(parts, budget);
}

Text Pad(const Text& text, int64_t width, const Text& fill, Alignment alignment, Budget& budget) {
  if (CountCharacters(fill.bytes()) != 1) Fail("the fill character must be one character");
  const int64_t missing = width - CountCharacters(text.bytes());
  if (missing <= 0) return text;
  // str.center() puts the odd one to the left where the width is odd.
  const int64_t left = alignment == Alignment::kLeft    ? 0
                       : alignment == Alignment::kRight ? missing
                                                        : missing / 2 + (missing & width & 1);
  budget.Take(static_cast<size_t>(CheckedMultiply(missing, 4)) + text.size());
  Text out;
  out.is_markup = text.is_markup;
  for (int64_t i = 0; i < left; ++i) out.Append(fill);
  out.Append(text);
  for (int64_t i = left; i < missing; ++i) out.Append(fill);
  return out;
}

}  // namespace swaa::jinja
