// Builds the tokens of a rendered conversation.

#include "engine/tokenizer/chat_prompt.h"

#include <optional>
#include <utility>

namespace swaa {

void ChatPrompt::AppendSpecial(std::string_view literal) {
  const std::optional<int32_t> id = tokenizer_.SpecialTokenId(literal);
  if (!id.has_value()) return AppendText(literal);
  EncodeText();
  tokens_.push_back(*id);
}

void ChatPrompt::AppendTemplate(std::string_view text,
                                const std::vector<std::string_view>& specials) {
  while (!text.empty()) {
    std::string_view special;
    for (const std::string_view literal : specials) {
      if (text.starts_with(literal)) special = literal;
    }
    if (special.empty()) {
      AppendText(text.substr(0, 1));
      text.remove_prefix(1);
    } else {
      AppendSpecial(special);
      text.remove_prefix(special.size());
    }
  }
}

void ChatPrompt::EncodeText() {
  if (text_.empty()) return;
  const std::vector<int32_t> ids = tokenizer_.Encode(text_, Tokenizer::SpecialTokens::kAsText);
  tokens_.insert(tokens_.end(), ids.begin(), ids.end());
  text_.clear();
}

std::vector<int32_t> ChatPrompt::Finish() {
  EncodeText();
  return std::move(tokens_);
}

std::string_view RoleName(ChatRole role) {
  switch (role) {
    case ChatRole::kSystem:
      return "system";
    case ChatRole::kUser:
      return "user";
    case ChatRole::kAssistant:
      return "assistant";
  }
  return "";
}

}  // namespace swaa
