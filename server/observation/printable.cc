// Anybody's text, made fit for one line of a log or of a terminal.

#include "server/observation/printable.h"

#include <utf8proc.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/tokenizer/utf8.h"

namespace swaa::server {
namespace {

bool MustBeEscaped(char32_t character) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(character))) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return true;
    default:
      return false;
  }
}

std::string Escape(char32_t character) {
  switch (character) {
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    default:
      break;
  }
  const auto code = static_cast<uint32_t>(character);
  if (code < 0x100) return absl::StrFormat("\\x%02x", code);
  return code < 0x10000 ? absl::StrFormat("\\u%04x", code) : absl::StrFormat("\\U%08x", code);
}

}  // namespace

std::string Printable(std::string_view text) {
  std::string line;
  line.reserve(text.size());
  while (!text.empty()) {
    const Utf8Unit unit = FirstUtf8Unit(text);
    const std::string_view character = text.substr(0, unit.length);
    text.remove_prefix(unit.length);
    if (unit.kind != Utf8Unit::Kind::kCharacter) {
      line += kReplacementCharacter;
      continue;
    }
    const char32_t code = DecodeUtf8(character);
    if (MustBeEscaped(code)) {
      line += Escape(code);
    } else {
      line += character;
    }
  }
  return line;
}

bool IsPrintable(std::string_view text) {
  while (!text.empty()) {
    const Utf8Unit unit = FirstUtf8Unit(text);
    if (unit.kind != Utf8Unit::Kind::kCharacter ||
        MustBeEscaped(DecodeUtf8(text.substr(0, unit.length)))) {
      return false;
    }
    text.remove_prefix(unit.length);
  }
  return true;
}

}  // namespace swaa::server
