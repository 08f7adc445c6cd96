// Renders chat messages into prompt tokens as the model's template says. A format is one file that
// registers itself in chat_format.cc's table; it recognises templates by their marks.

#ifndef SWAA_ENGINE_TOKENIZER_CHAT_FORMAT_H_
#define SWAA_ENGINE_TOKENIZER_CHAT_FORMAT_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/tokenizer/tokenizer.h"

namespace swaa {

enum class ChatRole { kSystem, kUser, kAssistant };

struct ChatMessage {
  ChatRole role = ChatRole::kUser;
  std::string content;
};

// Immutable; any thread.
class ChatFormat {
 public:
  virtual ~ChatFormat() = default;
  virtual std::string name() const = 0;
  // Whether the template has a thinking switch.
  virtual bool supports_thinking() const = 0;
  // Prompt tokens up to where the assistant's answer begins. Special tokens are the format's own;
  // contents are tokenised as plain text. `thinking` is only given to a format that supports it.
  virtual std::vector<int32_t> Render(const Tokenizer& tokenizer,
                                      const std::vector<ChatMessage>& messages,
                                      std::optional<bool> thinking) const = 0;
};

// The format of the tokenizer's chat template. UNIMPLEMENTED if no registered format recognises it,
// NOT_FOUND if the model has no template.
absl::StatusOr<std::unique_ptr<ChatFormat>> ChatFormatFor(const Tokenizer& tokenizer);

}  // namespace swaa

#endif  // SWAA_ENGINE_TOKENIZER_CHAT_FORMAT_H_
