// A conversation, and what a chat template sees of it.

#include "engine/tokenizer/chat_messages.h"

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/jinja/json.h"

namespace swaa {
namespace {

using jinja::Budget;
using jinja::Dict;
using jinja::MakeText;
using jinja::Value;

constexpr std::string_view kReasoningNames[] = {"reasoning_content", "thinking", "reasoning"};

absl::StatusOr<Value> ParseField(const std::string& json, const std::string& field) {
  absl::StatusOr<Value> value = jinja::ParseJson(json);
  if (value.ok()) return value;
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": ", std::string(value.status().message()), "; send whole JSON"));
}

// Templates look for reasoning under one of several names.
void AddReasoning(Budget& budget, Dict& message) {
  for (const std::string_view name : kReasoningNames) {
    const Value* found = message.Find(name);
    if (found == nullptr) continue;
    const Value reasoning = *found;
    for (const std::string_view other : {"thinking", "reasoning_content"}) {
      if (message.Find(other) == nullptr || other == "reasoning_content") {
        message.Set(MakeText(std::string(other)), reasoning, budget);
      }
    }
    return;
  }
}

absl::StatusOr<Value> MessageValue(const ChatMessage& message, const std::string& field,
                                   Budget& budget) {
  auto dict = std::make_shared<Dict>();
  dict->Set(MakeText("role"), MakeText(std::string(RoleName(message.role))), budget);
  Value more;
  if (!message.fields_json.empty()) {
    SWAA_ASSIGN_OR_RETURN(more, ParseField(message.fields_json, field));
    if (more.dict() == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat(field, ": it is no JSON object"));
    }
  }
  const bool has_content = more.dict() != nullptr && more.dict()->Find("content") != nullptr;
  if (more.dict() != nullptr && more.dict()->Find("role") != nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": it gives \"role\"; set the message's role instead"));
  }
  if (has_content && !message.content.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        field, ": it gives \"content\", which the message has; leave one of them out"));
  }
  if (!has_content) dict->Set(MakeText("content"), MakeText(message.content, true), budget);
  if (more.dict() != nullptr) {
    for (const auto& [key, value] : more.dict()->entries()) {
      if (!value.is_none()) dict->Set(key, value, budget);
    }
  }
  AddReasoning(budget, *dict);
  return Value(std::shared_ptr<const Dict>(std::move(dict)));
}

}  // namespace

std::string_view RoleName(ChatRole role) {
  switch (role) {
    case ChatRole::kSystem:
      return "system";
    case ChatRole::kUser:
      return "user";
    case ChatRole::kAssistant:
      return "assistant";
    case ChatRole::kTool:
      return "tool";
  }
  return "";
}

absl::StatusOr<Value> MessagesValue(const std::vector<ChatMessage>& messages) {
  // Input is as large as its sender made it; the bounds are those of rendering.
  Budget budget(jinja::Limits{.max_steps = INT64_MAX / 2, .max_bytes = INT64_MAX / 2});
  std::vector<Value> values;
  for (size_t i = 0; i < messages.size(); ++i) {
    SWAA_ASSIGN_OR_RETURN(
        Value value,
        MessageValue(messages[i], absl::StrCat("chat.messages[", i, "].fields_json"), budget));
    values.push_back(std::move(value));
  }
  return jinja::MakeSequence(std::move(values), budget);
}

absl::StatusOr<Value> ToolsValue(const std::string& tools_json) {
  if (tools_json.empty()) return Value();
  SWAA_ASSIGN_OR_RETURN(Value tools, ParseField(tools_json, "chat.tools_json"));
  if (tools.sequence() == nullptr) {
    return absl::InvalidArgumentError("chat.tools_json: it is no JSON array; send [tool, ...]");
  }
  return tools;
}

}  // namespace swaa
