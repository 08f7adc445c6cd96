// The escapes of a string constant in a template.

#include "engine/jinja/string_literal.h"

#include <charconv>

#include "engine/jinja/unicode.h"

namespace swaa::jinja {
namespace {

// Reads exactly `digits` hexadecimal digits from the front of `body`.
std::optional<char32_t> TakeHex(std::string_view& body, size_t digits) {
  uint32_t value = 0;
  if (body.size() < digits) return std::nullopt;
  const auto end = std::from_chars(body.data(), body.data() + digits, value, 16);
  if (end.ec != std::errc() || end.ptr != body.data() + digits) return std::nullopt;
  body.remove_prefix(digits);
  if (value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) return std::nullopt;
  return static_cast<char32_t>(value);
}

char32_t TakeOctal(char first, std::string_view& body) {
  char32_t value = static_cast<char32_t>(first - '0');
  for (int i = 0; i < 2 && !body.empty() && body[0] >= '0' && body[0] <= '7'; ++i) {
    value = value * 8 + static_cast<char32_t>(body[0] - '0');
    body.remove_prefix(1);
  }
  return value;
}

// What follows a backslash. False: not supported.
bool AppendEscape(std::string_view& body, std::string& out) {
  static constexpr std::string_view kNames = "abfnrtv\\'\"";
  static constexpr std::string_view kValues = "\a\b\f\n\r\t\v\\'\"";
  const char c = body[0];
  body.remove_prefix(1);
  if (c == '\n') return true;
  if (const size_t index = kNames.find(c); index != std::string_view::npos) {
    out += kValues[index];
    return true;
  }
  if (c >= '0' && c <= '7') {
    AppendCharacter(TakeOctal(c, body), out);
    return true;
  }
  const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
  if (digits > 0) {
    const std::optional<char32_t> character = TakeHex(body, digits);
    if (character.has_value()) AppendCharacter(*character, out);
    return character.has_value();
  }
  if (c == 'N') return false;
  out += '\\';
  out += c;
  return true;
}

}  // namespace

std::optional<std::string> UnescapeString(std::string_view body) {
  std::string out;
  while (!body.empty()) {
    const char c = body[0];
    body.remove_prefix(1);
    if (c != '\\') {
      out += c;
    } else if (body.empty() || !AppendEscape(body, out)) {
      return std::nullopt;
    }
  }
  return out;
}

}  // namespace swaa::jinja
