// GPT-2's byte alphabet.

#include "engine/tokenizer/byte_alphabet.h"

#include <array>

#include "engine/tokenizer/utf8.h"

namespace swaa {
namespace {

constexpr char32_t kEnd = 0x144;  // one past the last character of the alphabet

struct Alphabet {
  std::array<std::string, 256> character;
  std::array<int16_t, kEnd> byte;  // by code point; -1: none
};

Alphabet MakeAlphabet() {
  Alphabet alphabet;
  alphabet.byte.fill(-1);
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte != 0xAD);
    const char32_t code = printable ? static_cast<char32_t>(byte) : next++;
    std::string& character = alphabet.character[byte];
    if (code < 0x80) {
      character = static_cast<char>(code);
    } else {
      character = {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
    }
    alphabet.byte[code] = static_cast<int16_t>(byte);
  }
  return alphabet;
}

const Alphabet& TheAlphabet() {
  static const Alphabet& alphabet = *new Alphabet(MakeAlphabet());
  return alphabet;
}

}  // namespace

std::string_view ByteToAlphabet(uint8_t byte) { return TheAlphabet().character[byte]; }

std::optional<std::string> AlphabetToBytes(std::string_view text) {
  const Alphabet& alphabet = TheAlphabet();
  std::string bytes;
  while (!text.empty()) {
    const Utf8Unit unit = FirstUtf8Unit(text);
    if (unit.kind != Utf8Unit::Kind::kCharacter) return std::nullopt;
    const char32_t code = DecodeUtf8(text.substr(0, unit.length));
    if (code >= kEnd || alphabet.byte[code] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(alphabet.byte[code]));
    text.remove_prefix(unit.length);
  }
  return bytes;
}

}  // namespace swaa
