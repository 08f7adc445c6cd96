// Renders chat messages into prompt tokens by executing the model's own chat template.

#include "engine/tokenizer/chat_format.h"

#include <algorithm>
#include <ctime>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/jinja/text_functions.h"
#include "engine/tokenizer/chat_marks.h"
#include "engine/tokenizer/chat_prompt.h"
#include "engine/tokenizer/utf8.h"

namespace swaa {
namespace {

using jinja::MakeText;
using jinja::Text;
using jinja::Value;

// What templates call the switch: Qwen3 and many after it, DeepSeek and Granite.
constexpr const char* kThinkingNames[] = {"enable_thinking", "thinking"};

// Ends the content of a message that goes on. Its last space shows whether the template strips.
constexpr std::string_view kTag = "CONTINUE_FINAL_MESSAGE_TAG ";
constexpr std::string_view kStrippedTag = kTag.substr(0, kTag.size() - 1);

constexpr std::string_view kProbe = "swaa-turn-probe";

// With whose fault it is. A template may say what a client sent, in whatever bytes.
absl::Status OfTemplate(const absl::Status& status, const std::string& where) {
  return absl::Status(status.code(),
                      absl::StrCat(where, AsValidUtf8(std::string(status.message()), 2000)));
}

Conversation Small(std::initializer_list<ChatRole> roles) {
  Conversation conversation;
  for (const ChatRole role : roles) {
    const bool answers = role == ChatRole::kAssistant;
    conversation.messages.push_back({role, answers ? std::string(kProbe) : "a", ""});
  }
  return conversation;
}

// The text of the template itself, with a newline for what came from the conversation.
std::string OwnText(const Text& text) {
  std::string own;
  size_t begin = 0;
  for (const Text::Run& run : text.runs()) {
    own += run.is_input ? "\n" : text.bytes().substr(begin, run.end - begin);
    begin = run.end;
  }
  return own;
}

std::string StripEnd(const std::string& text) {
  const Text stripped = jinja::Strip(Text(text), nullptr, true, true);
  return stripped.bytes();
}

}  // namespace

ChatFormat::ChatFormat(const Tokenizer& tokenizer, std::unique_ptr<jinja::Template> chat_template,
                       std::unique_ptr<jinja::Template> tool_template)
    : tokenizer_(tokenizer),
      template_(std::move(chat_template)),
      tool_template_(std::move(tool_template)) {
  for (const char* name : kThinkingNames) {
    if (template_->free_variables().contains(name)) thinking_names_.emplace_back(name);
  }
}

absl::StatusOr<std::unique_ptr<ChatFormat>> ChatFormat::Create(const Tokenizer& tokenizer) {
  if (tokenizer.chat_template().empty()) {
    return absl::NotFoundError(
        "the model has no chat template; send a prompt or token ids, or serve a chat model");
  }
  auto parsed = jinja::Template::Parse(tokenizer.chat_template());
  if (!parsed.ok()) return OfTemplate(parsed.status(), "the model's chat template, ");
  std::unique_ptr<jinja::Template> for_tools;
  if (!tokenizer.tool_chat_template().empty()) {
    auto tool_parsed = jinja::Template::Parse(tokenizer.tool_chat_template());
    if (!tool_parsed.ok()) {
      return OfTemplate(tool_parsed.status(), "the model's chat template for tools, ");
    }
    for_tools = *std::move(tool_parsed);
  }
  std::unique_ptr<ChatFormat> format(
      new ChatFormat(tokenizer, *std::move(parsed), std::move(for_tools)));
  SWAA_RETURN_IF_ERROR(format->Examine());
  return format;
}

absl::StatusOr<Text> ChatFormat::RenderText(const Conversation& conversation,
                                            bool add_generation_prompt) const {
  SWAA_ASSIGN_OR_RETURN(Value messages, MessagesValue(conversation.messages));
  SWAA_ASSIGN_OR_RETURN(Value tools, ToolsValue(conversation.tools_json));
  jinja::Variables variables = {{"messages", std::move(messages)},
                                {"tools", std::move(tools)},
                                {"documents", Value()},
                                {"add_generation_prompt", add_generation_prompt}};
  for (const auto& [name, text] : tokenizer_.named_tokens()) {
    variables.emplace_back(name, MakeText(text));
  }
  if (conversation.thinking.has_value()) {
    for (const std::string& name : thinking_names_) {
      variables.emplace_back(name, *conversation.thinking);
    }
  }
  const bool has_own = !conversation.tools_json.empty() && tool_template_ != nullptr;
  const jinja::Template& chosen = has_own ? *tool_template_ : *template_;
  absl::StatusOr<Text> text = chosen.Render(variables, std::time(nullptr));
  if (!text.ok()) return OfTemplate(text.status(), "the model's chat template, ");
  return text;
}

// The content gets a tag at its end, and all from the tag on is cut off: what the template puts
// after contents is not there yet.
absl::StatusOr<Text> ChatFormat::RenderContinued(const Conversation& conversation) const {
  if (conversation.messages.empty() || conversation.messages.back().role != ChatRole::kAssistant) {
    return absl::InvalidArgumentError(
        "chat.continue_final_message: the last message is not the assistant's; send what it has "
        "said");
  }
  Conversation tagged = conversation;
  std::string& content = tagged.messages.back().content;
  const std::string said = StripEnd(content);
  content += kTag;
  SWAA_ASSIGN_OR_RETURN(Text text, RenderText(tagged, /*add_generation_prompt=*/false));
  const size_t at = text.bytes().rfind(kStrippedTag);
  if (at == std::string::npos || text.bytes().find(said) == std::string::npos) {
    return absl::InvalidArgumentError(
        "chat.continue_final_message: the model's chat template does not write the last message as "
        "it "
        "is, so it cannot go on; send the prompt as text");
  }
  if (text.bytes().compare(at, kTag.size(), kTag) == 0) return text.Substr(0, at);
  return jinja::Strip(text.Substr(0, at), nullptr, false, true);
}

absl::StatusOr<std::vector<int32_t>> ChatFormat::Render(const Conversation& conversation) const {
  absl::StatusOr<Text> text = conversation.continue_final_message
                                  ? RenderContinued(conversation)
                                  : RenderText(conversation, /*add_generation_prompt=*/true);
  if (!text.ok()) return text.status();
  std::vector<int32_t> ids = EncodeRendered(tokenizer_, *text);
  if (ids.empty()) {
    return absl::InvalidArgumentError(
        "chat.messages: the model's chat template renders them to nothing; send other messages");
  }
  return ids;
}

absl::Status ChatFormat::Examine() {
  std::set<std::string> marks;
  for (const std::string& literal : template_->literals()) CollectMarks(literal, marks);
  if (tool_template_ != nullptr) {
    for (const std::string& literal : tool_template_->literals()) CollectMarks(literal, marks);
  }
  absl::Status first_error;
  bool renders = false;
  for (const Conversation& conversation :
       {Small({ChatRole::kUser}), Small({ChatRole::kUser, ChatRole::kAssistant}),
        Small({ChatRole::kSystem, ChatRole::kUser, ChatRole::kAssistant}),
        Small({ChatRole::kUser, ChatRole::kAssistant, ChatRole::kUser})}) {
    const bool is_open = conversation.messages.back().role == ChatRole::kUser;
    const absl::StatusOr<Text> text = RenderText(conversation, is_open);
    if (!text.ok()) {
      first_error.Update(text.status());
      continue;
    }
    renders = true;
    CollectMarks(OwnText(*text), marks);
    const size_t probe = text->bytes().rfind(kProbe);
    if (probe == std::string::npos || !turn_end_ids_.empty()) continue;
    const std::string_view rest = std::string_view(text->bytes()).substr(probe + kProbe.size());
    if (const auto end = LeadingToken(rest, tokenizer_); end.has_value()) {
      turn_end_ids_.push_back(*end);
    }
  }
  if (!renders) return first_error;
  if (const auto mark = MistypedMark(marks, tokenizer_); mark.has_value()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the model's chat template writes ", *mark,
        ", which the vocabulary types as plain text, so that no prompt could hold it as a token; "
        "mend the token types of the model file, or send token ids"));
  }
  if (const auto mark = MissingMark(marks, tokenizer_); turn_end_ids_.empty() && mark.has_value()) {
    return absl::FailedPreconditionError(
        absl::StrCat("the model's chat template writes ", *mark,
                     ", which is no token of the vocabulary, and closes no answer with one; serve "
                     "the model with its own tokenizer, or send a prompt or token ids"));
  }
  const std::vector<int32_t>& known = tokenizer_.eos_ids();
  std::erase_if(turn_end_ids_, [&](int32_t id) {
    return std::find(known.begin(), known.end(), id) != known.end();
  });
  return absl::OkStatus();
}

}  // namespace swaa
