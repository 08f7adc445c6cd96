// Characters of UTF-8 text and what Python says about them. A byte that is no part of UTF-8 is a
// character of its own, U+FFFD.

#ifndef SWAA_ENGINE_JINJA_UNICODE_H_
#define SWAA_ENGINE_JINJA_UNICODE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace swaa::jinja {

// In bytes; `at` is below the size.
size_t CharacterLength(std::string_view text, size_t at);
char32_t CharacterAt(std::string_view text, size_t at);
int64_t CountCharacters(std::string_view text);
// The byte offset of character `index`, or the size where there are fewer.
size_t OffsetOf(std::string_view text, int64_t index);
void AppendCharacter(char32_t character, std::string& out);
bool IsValidUtf8(std::string_view text);

// str.isspace(), which is also what str.strip() removes.
bool IsSpace(char32_t character);
// What str.splitlines() splits at.
bool IsLineBreak(char32_t character);
bool IsPrintable(char32_t character);
bool IsAlpha(char32_t character);
bool IsDecimal(char32_t character);
// str.isalnum(), but for numbers that are neither letters nor decimal digits, which throw.
bool IsAlnum(char32_t character);
bool IsUpper(char32_t character);
bool IsLower(char32_t character);

// Case mappings of a character. They throw for the few whose mapping is more than one character and
// not known here.
void AppendUpper(char32_t character, std::string& out);
void AppendTitle(char32_t character, std::string& out);
// `before` and `after` are the text around it: a final sigma has a form of its own.
void AppendLower(char32_t character, std::string_view before, std::string_view after,
                 std::string& out);

}  // namespace swaa::jinja

#endif  // SWAA_ENGINE_JINJA_UNICODE_H_
