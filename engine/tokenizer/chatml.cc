// ChatML, <|im_start|>role\ncontent<|im_end|>\n, as SmolLM2, Qwen2 and
// Qwen3 write it.

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/tokenizer/chat_formats.h"
#include "engine/tokenizer/chat_prompt.h"

namespace swaa {
namespace {

constexpr std::string_view kStart = "<|im_start|>";
constexpr std::string_view kEnd = "<|im_end|>";
constexpr std::string_view kThink = "<think>";
constexpr std::string_view kThinkEnd = "</think>";

struct ChatMlOptions {
  std::string default_system;  // inserted when no system message comes first; empty: none
  std::string generation;      // what the answer follows
  bool has_thinking_switch = false;
  bool splits_reasoning = false;  // Qwen3: earlier answers lose their thinking section
};

std::string_view StripNewlines(std::string_view text, bool left, bool right) {
  while (left && text.starts_with('\n')) text.remove_prefix(1);
  while (right && text.ends_with('\n')) text.remove_suffix(1);
  return text;
}

class ChatMl : public ChatFormat {
 public:
  explicit ChatMl(ChatMlOptions options) : options_(std::move(options)) {}

  std::string name() const override { return "chatml"; }
  bool supports_thinking() const override { return options_.has_thinking_switch; }

  std::vector<int32_t> Render(const Tokenizer& tokenizer, const std::vector<ChatMessage>& messages,
                              std::optional<bool> thinking) const override {
    ChatPrompt prompt(tokenizer);
    const bool has_system = !messages.empty() && messages[0].role == ChatRole::kSystem;
    if (!has_system && !messages.empty() && !options_.default_system.empty()) {
      AppendMessage({ChatRole::kSystem, options_.default_system}, prompt);
    }
    // The last question: answers after it belong to the turn that goes on.
    size_t last_query = messages.empty() ? 0 : messages.size() - 1;
    for (size_t i = messages.size(); i-- > 0;) {
      if (!IsQuery(messages[i])) continue;
      last_query = i;
      break;
    }
    for (size_t i = 0; i < messages.size(); ++i) {
      if (options_.splits_reasoning && messages[i].role == ChatRole::kAssistant) {
        AppendAnswer(messages[i].content, i > last_query, i + 1 == messages.size(), prompt);
      } else {
        AppendMessage(messages[i], prompt);
      }
    }
    prompt.AppendTemplate(options_.generation, {kStart, kEnd, kThink, kThinkEnd});
    if (options_.has_thinking_switch && thinking == false) {
      prompt.AppendTemplate("<think>\n\n</think>\n\n", {kThink, kThinkEnd});
    }
    return prompt.Finish();
  }

 private:
  // Qwen3 takes a tool's response, which comes as a user's message, for no question.
  static bool IsQuery(const ChatMessage& message) {
    return message.role == ChatRole::kUser && !(message.content.starts_with("<tool_response>") &&
                                                message.content.ends_with("</tool_response>"));
  }

  static void AppendMessage(const ChatMessage& message, ChatPrompt& prompt) {
    prompt.AppendSpecial(kStart);
    prompt.AppendText(RoleName(message.role));
    prompt.AppendText("\n");
    prompt.AppendText(message.content);
    prompt.AppendSpecial(kEnd);
    prompt.AppendText("\n");
  }

  static void AppendAnswer(std::string_view content, bool in_current_turn, bool is_last,
                           ChatPrompt& prompt) {
    std::string_view reasoning;
    if (const size_t first = content.find(kThinkEnd); first != std::string_view::npos) {
      reasoning = StripNewlines(content.substr(0, first), false, true);
      if (const size_t begin = reasoning.rfind(kThink); begin != std::string_view::npos) {
        reasoning.remove_prefix(begin + kThink.size());
      }
      reasoning = StripNewlines(reasoning, true, false);
      content = content.substr(content.rfind(kThinkEnd) + kThinkEnd.size());
      content = StripNewlines(content, true, false);
    }
    prompt.AppendSpecial(kStart);
    prompt.AppendText("assistant\n");
    if (in_current_turn && (is_last || !reasoning.empty())) {
      prompt.AppendSpecial(kThink);
      prompt.AppendText(
          absl::StrCat("\n", std::string(StripNewlines(reasoning, true, true)), "\n"));
      prompt.AppendSpecial(kThinkEnd);
      prompt.AppendText("\n\n");
      content = StripNewlines(content, true, false);
    }
    prompt.AppendText(content);
    prompt.AppendSpecial(kEnd);
    prompt.AppendText("\n");
  }

  ChatMlOptions options_;
};

bool Contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

bool ContainsAny(const std::string& text, std::initializer_list<std::string_view> parts) {
  return std::any_of(parts.begin(), parts.end(),
                     [&](std::string_view part) { return Contains(text, part); });
}

absl::Status Unsupported(const std::string& what) {
  return absl::UnimplementedError(
      absl::StrCat("the model's chat template is ChatML, but ", what,
                   ", which this build does not render; send a prompt or token ids"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChatFormat>> MakeChatMl(const JinjaText& jinja) {
  const std::string& code = jinja.code;
  if (!Contains(code, kStart)) return nullptr;
  if (jinja.has_outside_text) return Unsupported("it has text outside of its blocks");
  for (const std::string_view mark :
       {"strftime", "bos_token", "system_message", "enable_thinking is true", "{%macro", "|trim"}) {
    if (Contains(code, mark)) return Unsupported(absl::StrCat("it says ", std::string(mark)));
  }
  if (!ContainsAny(code, {"'<|im_start|>'+message.role+'\\n'+message.content+'<|im_end|>'",
                          "'<|im_start|>'+message.role+'\\n'+content+'<|im_end|>'"})) {
    return Unsupported("it writes messages in another way than role, newline, content");
  }
  ChatMlOptions options;
  const std::string system_start = absl::StrCat(std::string(kStart), "system\n");
  const std::string system_end = absl::StrCat(std::string(kEnd), "\n");
  const std::string answer_start = absl::StrCat(std::string(kStart), "assistant\n");
  for (const std::string& text : jinja.strings) {
    if (text.starts_with(answer_start)) options.generation = text;
    if (!text.starts_with(system_start) || !text.ends_with(system_end)) continue;
    const size_t length = text.size() - system_start.size() - system_end.size();
    options.default_system = text.substr(system_start.size(), length);
  }
  if (options.generation.empty()) return Unsupported("it never begins the assistant's answer");
  options.has_thinking_switch = Contains(code, "enable_thinking");
  options.splits_reasoning = Contains(code, ".split('</think>')");
  if (options.has_thinking_switch &&
      !Contains(code,
                "{%if enable_thinking is defined and enable_thinking is false%}"
                "{{'<think>\\n\\n</think>\\n\\n'}}{%endif%}")) {
    return Unsupported("its thinking switch is of another form than Qwen3's");
  }
  if (options.splits_reasoning && !Contains(code, "loop.index0>ns.last_query_index")) {
    return Unsupported("it treats earlier thinking sections in another way than Qwen3's");
  }
  return std::make_unique<ChatMl>(std::move(options));
}

}  // namespace swaa
