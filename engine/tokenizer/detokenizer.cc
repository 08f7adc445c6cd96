// From tokens to whole UTF-8.

#include "engine/tokenizer/detokenizer.h"

#include <string_view>

#include "engine/tokenizer/utf8.h"

namespace swaa {

std::string Detokenizer::Append(int32_t token, bool show_special) {
  if (tokenizer_->IsSpecial(token) && !show_special) return "";
  return AppendBytes(tokenizer_->TokenBytes(token));
}

std::string Detokenizer::AppendBytes(std::string_view bytes) {
  pending_.append(bytes);
  std::string text;
  std::string_view rest = pending_;
  while (!rest.empty()) {
    const Utf8Unit unit = FirstUtf8Unit(rest);
    if (unit.kind == Utf8Unit::Kind::kIncomplete) break;
    text.append(unit.kind == Utf8Unit::Kind::kCharacter ? rest.substr(0, unit.length)
                                                        : kReplacementCharacter);
    rest.remove_prefix(unit.length);
  }
  pending_ = std::string(rest);
  return text;
}

std::string Detokenizer::Flush() {
  if (pending_.empty()) return "";
  pending_.clear();  // what waits is the beginning of one character
  return std::string(kReplacementCharacter);
}

}  // namespace swaa
