// Renders chat messages into prompt tokens by executing the model's own chat template, with the
// variables that Hugging Face's transformers gives it.

#ifndef SWAA_ENGINE_TOKENIZER_CHAT_FORMAT_H_
#define SWAA_ENGINE_TOKENIZER_CHAT_FORMAT_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/jinja/template.h"
#include "engine/tokenizer/chat_messages.h"
#include "engine/tokenizer/tokenizer.h"

namespace swaa {

// Immutable; any thread. The tokenizer outlives it.
class ChatFormat {
 public:
  // Of the tokenizer's chat template, and of the one for tools, if it has one. NOT_FOUND: it has
  // none. INVALID_ARGUMENT, UNIMPLEMENTED: the template cannot be read or rendered.
  // FAILED_PRECONDITION: the vocabulary types the template's marks as plain text, or lacks them, so
  // that a prompt would not hold them as tokens.
  static absl::StatusOr<std::unique_ptr<ChatFormat>> Create(const Tokenizer& tokenizer);

  // Whether the template has a thinking switch.
  bool supports_thinking() const { return !thinking_names_.empty(); }
  // Tokens that close the assistant's turn and are not among the tokenizer's end tokens.
  const std::vector<int32_t>& turn_end_ids() const { return turn_end_ids_; }

  // Prompt tokens, at least one, up to where the assistant's answer begins or goes on. A special
  // token's text in the conversation stays text; only the template writes special tokens.
  // `conversation.thinking` is only given to a format that supports it. INVALID_ARGUMENT, naming
  // the field: what the template refuses, with its words, and JSON that is none.
  absl::StatusOr<std::vector<int32_t>> Render(const Conversation& conversation) const;

 private:
  ChatFormat(const Tokenizer& tokenizer, std::unique_ptr<jinja::Template> chat_template,
             std::unique_ptr<jinja::Template> tool_template);

  absl::StatusOr<jinja::Text> RenderText(const Conversation& conversation,
                                         bool add_generation_prompt) const;
  absl::StatusOr<jinja::Text> RenderContinued(const Conversation& conversation) const;
  // Renders small conversations and learns from them.
  absl::Status Examine();

  const Tokenizer& tokenizer_;
  std::unique_ptr<jinja::Template> template_;
  std::unique_ptr<jinja::Template> tool_template_;  // null: tools are given to the other one
  std::vector<std::string> thinking_names_;
  std::vector<int32_t> turn_end_ids_;
};

}  // namespace swaa

#endif  // SWAA_ENGINE_TOKENIZER_CHAT_FORMAT_H_
