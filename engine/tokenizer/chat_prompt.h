// Builds the tokens of a rendered conversation.

#ifndef SWAA_ENGINE_TOKENIZER_CHAT_PROMPT_H_
#define SWAA_ENGINE_TOKENIZER_CHAT_PROMPT_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tokenizer/chat_format.h"
#include "engine/tokenizer/tokenizer.h"

namespace swaa {

// Text between two special tokens is tokenised in one piece, whatever parts it was put together
// from, as it is when a template is rendered to a string first.
class ChatPrompt {
 public:
  explicit ChatPrompt(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  // A special token by its literal; plain text where the vocabulary has none such.
  void AppendSpecial(std::string_view literal);
  // Plain text; special tokens in it are not parsed.
  void AppendText(std::string_view text) { text_.append(text); }
  // The template's own text, in which the literals of `specials` are special tokens.
  void AppendTemplate(std::string_view text, const std::vector<std::string_view>& specials);

  std::vector<int32_t> Finish();

 private:
  void EncodeText();

  const Tokenizer& tokenizer_;
  std::vector<int32_t> tokens_;
  std::string text_;  // since the last special token
};

// "system", "user", "assistant".
std::string_view RoleName(ChatRole role);

}  // namespace swaa

#endif  // SWAA_ENGINE_TOKENIZER_CHAT_PROMPT_H_
