// Checks of names and texts that come from model files.

#include "engine/checkpoint/text_checks.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "engine/tokenizer/utf8.h"

namespace swaa {

bool IsValidUtf8(std::string_view text) { return ValidUtf8Prefix(text) == text.size(); }

std::string Quoted(std::string_view text) {
  constexpr size_t kMaxBytes = 80;
  const std::string_view shown = text.substr(0, kMaxBytes);
  return absl::StrCat("'", absl::CHexEscape(absl::string_view(shown.data(), shown.size())),
                      text.size() > kMaxBytes ? "'..." : "'");
}

}  // namespace swaa
