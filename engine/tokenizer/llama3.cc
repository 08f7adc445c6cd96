// Llama 3's chat format (the template of 3.0; 3.1's, with its dates, is
// refused).

#include <array>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/tokenizer/chat_formats.h"
#include "engine/tokenizer/chat_prompt.h"
#include "engine/tokenizer/utf8.h"

namespace swaa {
namespace {

constexpr std::string_view kBos = "<|begin_of_text|>";
constexpr std::string_view kHeaderStart = "<|start_header_id|>";
constexpr std::string_view kHeaderEnd = "<|end_header_id|>";
constexpr std::string_view kEndOfTurn = "<|eot_id|>";

// What Python's str.strip() removes.
bool IsPythonSpace(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

std::string_view Strip(std::string_view text) {
  size_t begin = text.size();
  size_t end = 0;
  for (size_t at = 0; at < text.size();) {
    const Utf8Unit unit = FirstUtf8Unit(text.substr(at));
    const bool is_space = unit.kind == Utf8Unit::Kind::kCharacter &&
                          IsPythonSpace(DecodeUtf8(text.substr(at, unit.length)));
    if (!is_space) {
      begin = std::min(begin, at);
      end = at + unit.length;
    }
    at += unit.length;
  }
  return end == 0 ? std::string_view() : text.substr(begin, end - begin);
}

class Llama3 : public ChatFormat {
 public:
  std::string name() const override { return "llama3"; }
  bool supports_thinking() const override { return false; }

  std::vector<int32_t> Render(const Tokenizer& tokenizer, const std::vector<ChatMessage>& messages,
                              std::optional<bool> thinking) const override {
    ChatPrompt prompt(tokenizer);
    if (!messages.empty()) prompt.AppendSpecial(kBos);
    for (const ChatMessage& message : messages) {
      AppendHeader(message.role, prompt);
      prompt.AppendText(Strip(message.content));
      prompt.AppendSpecial(kEndOfTurn);
    }
    AppendHeader(ChatRole::kAssistant, prompt);
    return prompt.Finish();
  }

 private:
  static void AppendHeader(ChatRole role, ChatPrompt& prompt) {
    prompt.AppendSpecial(kHeaderStart);
    prompt.AppendText(RoleName(role));
    prompt.AppendSpecial(kHeaderEnd);
    prompt.AppendText("\n\n");
  }
};

}  // namespace

absl::StatusOr<std::unique_ptr<ChatFormat>> MakeLlama3(const JinjaText& jinja) {
  const std::string& code = jinja.code;
  if (code.find(kHeaderStart) == std::string::npos) return nullptr;
  const bool is_plain =
      code.find(
          "'<|start_header_id|>'+message.role+'<|end_header_id|>\\n\\n'+message.content|trim+"
          "'<|eot_id|>'") != std::string::npos;
  const bool has_more = code.find("Cutting Knowledge") != std::string::npos ||
                        code.find("strftime") != std::string::npos || jinja.has_outside_text;
  if (!is_plain || has_more) {
    return absl::UnimplementedError(
        "the model's chat template is Llama 3's with more than messages (dates or tools), which "
        "this "
        "build does not render; send a prompt or token ids");
  }
  return std::make_unique<Llama3>();
}

}  // namespace swaa
