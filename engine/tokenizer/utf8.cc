// Reads UTF-8 one unit at a time.

#include "engine/tokenizer/utf8.h"

#include <cstdint>

namespace swaa {
namespace {

struct Lead {
  size_t length;       // of the whole character; 0: no lead byte
  uint8_t second_low;  // range of the second byte; later ones are 80..BF
  uint8_t second_high;
};

Lead LeadOf(uint8_t byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xC2) return {0, 0, 0};
  if (byte < 0xE0) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

}  // namespace

Utf8Unit FirstUtf8Unit(std::string_view text) {
  const Lead lead = LeadOf(static_cast<uint8_t>(text[0]));
  if (lead.length == 0) return {Utf8Unit::Kind::kInvalid, 1};
  for (size_t i = 1; i < lead.length; ++i) {
    if (i == text.size()) return {Utf8Unit::Kind::kIncomplete, i};
    const uint8_t byte = static_cast<uint8_t>(text[i]);
    const uint8_t low = i == 1 ? lead.second_low : 0x80;
    const uint8_t high = i == 1 ? lead.second_high : 0xBF;
    if (byte < low || byte > high) return {Utf8Unit::Kind::kInvalid, i};
  }
  return {Utf8Unit::Kind::kCharacter, lead.length};
}

size_t ValidUtf8Prefix(std::string_view text) {
  size_t end = 0;
  while (end < text.size()) {
    const Utf8Unit unit = FirstUtf8Unit(text.substr(end));
    if (unit.kind != Utf8Unit::Kind::kCharacter) break;
    end += unit.length;
  }
  return end;
}

std::string AsValidUtf8(std::string_view text, size_t max_bytes) {
  std::string valid;
  while (!text.empty()) {
    const Utf8Unit unit = FirstUtf8Unit(text);
    const bool whole = unit.kind == Utf8Unit::Kind::kCharacter;
    const std::string_view shown = whole ? text.substr(0, unit.length) : kReplacementCharacter;
    if (shown.size() > max_bytes - valid.size()) break;
    valid.append(shown);
    text.remove_prefix(unit.length);
  }
  return valid;
}

char32_t DecodeUtf8(std::string_view character) {
  const uint8_t lead = static_cast<uint8_t>(character[0]);
  if (character.size() == 1) return lead;
  char32_t code = lead & (0x7F >> character.size());
  for (const char byte : character.substr(1))
    code = code << 6 | (static_cast<uint8_t>(byte) & 0x3F);
  return code;
}

}  // namespace swaa
