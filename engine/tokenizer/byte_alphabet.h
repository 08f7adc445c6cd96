// GPT-2's byte alphabet, in which vocabularies are written. Each byte is
// one printable character: itself where it is printable, else U+0100 and following in order.

#ifndef SWAA_ENGINE_TOKENIZER_BYTE_ALPHABET_H_
#define SWAA_ENGINE_TOKENIZER_BYTE_ALPHABET_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace swaa {

// The character (UTF-8) that stands for `byte`.
std::string_view ByteToAlphabet(uint8_t byte);

// The bytes that a text in the alphabet stands for; nothing if it has a character that is not of
// the alphabet.
std::optional<std::string> AlphabetToBytes(std::string_view text);

}  // namespace swaa

#endif  // SWAA_ENGINE_TOKENIZER_BYTE_ALPHABET_H_
