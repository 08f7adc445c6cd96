// Characters of UTF-8 text and what Python says about them.

#include "engine/jinja/unicode.h"

#include <algorithm>
#include <optional>
#include <utf8proc.h>

#include "absl/strings/str_format.h"
#include "engine/jinja/budget.h"

namespace swaa::jinja {
namespace {

struct Decoded {
  char32_t character;
  size_t length;
  bool valid;
};

Decoded DecodeAt(std::string_view text, size_t at) {
  const auto byte = static_cast<unsigned char>(text[at]);
  if (byte < 0x80) return {byte, 1, true};
  utf8proc_int32_t character = -1;
  const utf8proc_ssize_t length =
      utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + at,
                       static_cast<utf8proc_ssize_t>(text.size() - at), &character);
  if (length <= 0 || character < 0) return {0xFFFD, 1, false};
  return {static_cast<char32_t>(character), static_cast<size_t>(length), true};
}

utf8proc_category_t CategoryOf(char32_t character) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(character));
}

bool IsCased(char32_t character) {
  const utf8proc_category_t category = CategoryOf(character);
  return category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL ||
         category == UTF8PROC_CATEGORY_LT;
}

// What a final sigma's neighbours are looked for behind (Unicode's Case_Ignorable).
bool IsCaseIgnorable(char32_t character) {
  switch (CategoryOf(character)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
      return true;
    default:
      return character == '\'' || character == '.' || character == ':' || character == 0xB7 ||
             character == 0x2018 || character == 0x2019 || character == 0x2024 ||
             character == 0x2027;
  }
}

bool EndsCased(std::string_view text) {
  size_t end = text.size();
  while (end > 0) {
    size_t at = end - 1;
    while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
    const char32_t character = CharacterAt(text, at);
    if (!IsCaseIgnorable(character)) return IsCased(character);
    end = at;
  }
  return false;
}

bool BeginsCased(std::string_view text) {
  for (size_t at = 0; at < text.size(); at += CharacterLength(text, at)) {
    const char32_t character = CharacterAt(text, at);
    if (!IsCaseIgnorable(character)) return IsCased(character);
  }
  return false;
}

struct SpecialCase {
  char32_t character;
  const char* upper;
  const char* title;
};

// The characters of Unicode's SpecialCasing.txt that texts use.
constexpr SpecialCase kSpecialCases[] = {
    {0xDF, "SS", "Ss"},     {0x149, "\xCA\xBCN", "\xCA\xBCN"},
    {0xFB00, "FF", "Ff"},   {0xFB01, "FI", "Fi"},
    {0xFB02, "FL", "Fl"},   {0xFB03, "FFI", "Ffi"},
    {0xFB04, "FFL", "Ffl"}, {0xFB05, "ST", "St"},
    {0xFB06, "ST", "St"},
};

// The others there: one character becomes two or three.
bool HasUnknownCase(char32_t c) {
  return c == 0x1F0 || c == 0x390 || c == 0x3B0 || c == 0x587 || (c >= 0x1E96 && c <= 0x1E9A) ||
         c == 0x1F50 || c == 0x1F52 || c == 0x1F54 || c == 0x1F56 || (c >= 0x1F80 && c <= 0x1FAF) ||
         (c >= 0x1FB2 && c <= 0x1FB7) || c == 0x1FBC || (c >= 0x1FC2 && c <= 0x1FC7) ||
         c == 0x1FCC || (c >= 0x1FD2 && c <= 0x1FD7) || (c >= 0x1FE2 && c <= 0x1FE7) ||
         (c >= 0x1FF2 && c <= 0x1FF7) || c == 0x1FFC || (c >= 0xFB13 && c <= 0xFB17);
}

const SpecialCase* SpecialCaseOf(char32_t character) {
  if (character < 0xDF) return nullptr;
  for (const SpecialCase& special : kSpecialCases) {
    if (special.character == character) return &special;
  }
  if (HasUnknownCase(character)) {
    Fail(absl::StrFormat("the upper case of U+%04X is not supported",
                         static_cast<uint32_t>(character)));
  }
  return nullptr;
}

}  // namespace

size_t CharacterLength(std::string_view text, size_t at) { return DecodeAt(text, at).length; }

char32_t CharacterAt(std::string_view text, size_t at) { return DecodeAt(text, at).character; }

int64_t CountCharacters(std::string_view text) {
  int64_t count = 0;
  for (size_t at = 0; at < text.size(); at += CharacterLength(text, at)) ++count;
  return count;
}

size_t OffsetOf(std::string_view text, int64_t index) {
  size_t at = 0;
  while (index > 0 && at < text.size()) {
    at += CharacterLength(text, at);
    --index;
  }
  return at;
}

void AppendCharacter(char32_t character, std::string& out) {
  utf8proc_uint8_t bytes[4];
  const utf8proc_ssize_t length =
      utf8proc_encode_char(static_cast<utf8proc_int32_t>(character), bytes);
  out.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(length));
}

bool IsValidUtf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const Decoded decoded = DecodeAt(text, at);
    if (!decoded.valid) return false;
    at += decoded.length;
  }
  return true;
}

bool IsSpace(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

bool IsLineBreak(char32_t c) {
  return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
         c == 0x2029;
}

bool IsPrintable(char32_t character) {
  if (character == ' ') return true;
  switch (CategoryOf(character)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

bool IsAlpha(char32_t character) {
  const utf8proc_category_t category = CategoryOf(character);
  return IsCased(character) || category == UTF8PROC_CATEGORY_LM || category == UTF8PROC_CATEGORY_LO;
}

bool IsDecimal(char32_t character) { return CategoryOf(character) == UTF8PROC_CATEGORY_ND; }

bool IsAlnum(char32_t character) {
  const utf8proc_category_t category = CategoryOf(character);
  if (category == UTF8PROC_CATEGORY_NO || category == UTF8PROC_CATEGORY_NL) {
    Fail(absl::StrFormat("whether U+%04X is a digit is not supported",
                         static_cast<uint32_t>(character)));
  }
  return IsAlpha(character) || category == UTF8PROC_CATEGORY_ND;
}

bool IsUpper(char32_t character) { return CategoryOf(character) == UTF8PROC_CATEGORY_LU; }
bool IsLower(char32_t character) { return CategoryOf(character) == UTF8PROC_CATEGORY_LL; }

void AppendUpper(char32_t character, std::string& out) {
  if (const SpecialCase* special = SpecialCaseOf(character); special != nullptr) {
    out += special->upper;
    return;
  }
  AppendCharacter(static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(character))),
                  out);
}

void AppendTitle(char32_t character, std::string& out) {
  if (const SpecialCase* special = SpecialCaseOf(character); special != nullptr) {
    out += special->title;
    return;
  }
  AppendCharacter(static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(character))),
                  out);
}

void AppendLower(char32_t character, std::string_view before, std::string_view after,
                 std::string& out) {
  if (character == 0x3A3 && EndsCased(before) && !BeginsCased(after)) {
    AppendCharacter(0x3C2, out);
  } else if (character == 0x130) {
    out += "i\xCC\x87";
  } else {
    AppendCharacter(
        static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(character))), out);
  }
}

}  // namespace swaa::jinja
