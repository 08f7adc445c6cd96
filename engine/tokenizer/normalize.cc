// Unicode normalisation form C, by utf8proc.

#include "engine/tokenizer/normalize.h"

#include <algorithm>
#include <cstdlib>
#include <utf8proc.h>

#include "engine/tokenizer/utf8.h"

namespace swaa {
namespace {

constexpr int kMaxMarks = 128;

// Appends NFC of `text`, or `text` itself should utf8proc refuse it.
void AppendNfc(std::string_view text, std::string& out) {
  uint8_t* composed = nullptr;
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  const utf8proc_ssize_t length =
      utf8proc_map(reinterpret_cast<const uint8_t*>(text.data()),
                   static_cast<utf8proc_ssize_t>(text.size()), &composed, options);
  if (length < 0) {
    out.append(text);
    return;
  }
  out.append(reinterpret_cast<const char*>(composed), static_cast<size_t>(length));
  std::free(composed);
}

}  // namespace

std::string NormalizeNfc(std::string_view text) {
  const auto is_ascii = [](char byte) { return static_cast<signed char>(byte) >= 0; };
  if (std::all_of(text.begin(), text.end(), is_ascii)) return std::string(text);
  // utf8proc sorts marks by insertion, in quadratic time, so no run of them may be long.
  std::string out;
  out.reserve(text.size());
  size_t begin = 0;
  int marks = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t length = FirstUtf8Unit(text.substr(at)).length;
    const char32_t code = DecodeUtf8(text.substr(at, length));
    const bool is_mark =
        utf8proc_get_property(static_cast<utf8proc_int32_t>(code))->combining_class != 0;
    marks = is_mark ? marks + 1 : 0;
    if (marks > kMaxMarks) {
      AppendNfc(text.substr(begin, at - begin), out);
      begin = at;
      marks = 1;
    }
    at += length;
  }
  AppendNfc(text.substr(begin), out);
  return out;
}

}  // namespace swaa
