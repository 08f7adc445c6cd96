// A conversation, and what a chat template sees of it.

#ifndef SWAA_ENGINE_TOKENIZER_CHAT_MESSAGES_H_
#define SWAA_ENGINE_TOKENIZER_CHAT_MESSAGES_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/jinja/value.h"

namespace swaa {

enum class ChatRole { kSystem, kUser, kAssistant, kTool };

// "system", "user", "assistant", "tool".
std::string_view RoleName(ChatRole role);

struct ChatMessage {
  ChatRole role = ChatRole::kUser;
  std::string content;
  std::string fields_json;  // an object: further members; empty: none
};

struct Conversation {
  std::vector<ChatMessage> messages;
  std::string tools_json;  // an array; empty: none
  bool continue_final_message = false;
  std::optional<bool> thinking;
};

// The list of messages that a template sees: of each the role, the content and further members, in
// this order, their texts marked as input. Members that are null are left out, and reasoning is
// found under each of its names, as with transformers. INVALID_ARGUMENT: fields_json is no object,
// or gives what the message has already.
absl::StatusOr<jinja::Value> MessagesValue(const std::vector<ChatMessage>& messages);

// The list of tools; none where there is none. INVALID_ARGUMENT: no array.
absl::StatusOr<jinja::Value> ToolsValue(const std::string& tools_json);

}  // namespace swaa

#endif  // SWAA_ENGINE_TOKENIZER_CHAT_MESSAGES_H_
