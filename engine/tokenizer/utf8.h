// Reads UTF-8 one unit at a time (Unicode 15, table 3-7).

#ifndef SWAA_ENGINE_TOKENIZER_UTF8_H_
#define SWAA_ENGINE_TOKENIZER_UTF8_H_

#include <cstddef>
#include <string>
#include <string_view>

namespace swaa {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

struct Utf8Unit {
  enum class Kind {
    kCharacter,   // one whole character
    kInvalid,     // bytes that can never be part of one: the maximal subpart, at least one byte
    kIncomplete,  // the text ends inside what may become a character
  };
  Kind kind;
  size_t length;  // in bytes
};

// The unit that non-empty `text` begins with.
Utf8Unit FirstUtf8Unit(std::string_view text);

// The longest beginning of `text` that is whole UTF-8, in bytes.
size_t ValidUtf8Prefix(std::string_view text);

// Text that a message can hold, whatever the bytes: what is no UTF-8 becomes U+FFFD, and the text
// is cut before the character that would take the result over `max_bytes`.
std::string AsValidUtf8(std::string_view text, size_t max_bytes = std::string_view::npos);

// The code point of a whole character.
char32_t DecodeUtf8(std::string_view character);

}  // namespace swaa

#endif  // SWAA_ENGINE_TOKENIZER_UTF8_H_
