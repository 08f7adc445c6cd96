// The table of chat formats.

#include "engine/tokenizer/chat_format.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/tokenizer/chat_formats.h"
#include "engine/tokenizer/jinja_text.h"
#include "engine/tokenizer/utf8.h"

namespace swaa {
namespace {

using Maker = absl::StatusOr<std::unique_ptr<ChatFormat>> (*)(const JinjaText&);

struct Entry {
  const char* name;
  Maker make;
};

constexpr Entry kFormats[] = {
    {"chatml", MakeChatMl},
    {"llama3", MakeLlama3},
};

}  // namespace

absl::StatusOr<std::unique_ptr<ChatFormat>> ChatFormatFor(const Tokenizer& tokenizer) {
  if (tokenizer.chat_template().empty()) {
    return absl::NotFoundError(
        "the model has no chat template; send a prompt or token ids, or serve a chat model");
  }
  const JinjaText jinja = ReadJinja(tokenizer.chat_template());
  std::string names;
  for (const Entry& entry : kFormats) {
    SWAA_ASSIGN_OR_RETURN(std::unique_ptr<ChatFormat> format, entry.make(jinja));
    if (format != nullptr) return format;
    absl::StrAppend(&names, names.empty() ? "" : ", ", entry.name);
  }
  return absl::UnimplementedError(
      absl::StrCat("the model's chat template is of a kind that this build does not have; it has ",
                   names, ". Send a prompt or token ids. The template begins: ",
                   AsValidUtf8(tokenizer.chat_template(), 120)));
}

}  // namespace swaa
