// Checks of names and texts that come from model files.

#include "engine/checkpoint/text_checks.h"

#include <utf8proc.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace swaa {

bool IsValidUtf8(std::string_view text) {
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  auto left = static_cast<utf8proc_ssize_t>(text.size());
  while (left > 0) {
    utf8proc_int32_t code_point = 0;
    const utf8proc_ssize_t length = utf8proc_iterate(bytes, left, &code_point);
    if (length <= 0) return false;
    bytes += length;
    left -= length;
  }
  return true;
}

std::string Quoted(std::string_view text) {
  constexpr size_t kMaxBytes = 80;
  const std::string_view shown = text.substr(0, kMaxBytes);
  return absl::StrCat("'", absl::CHexEscape(absl::string_view(shown.data(), shown.size())),
                      text.size() > kMaxBytes ? "'..." : "'");
}

}  // namespace swaa
