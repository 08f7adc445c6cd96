// From the text that a chat template wrote to tokens.

#include "engine/tokenizer/chat_prompt.h"

namespace swaa {

std::vector<int32_t> EncodeRendered(const Tokenizer& tokenizer, const jinja::Text& text) {
  return tokenizer.Encode(text.bytes(), [&](int32_t id, size_t begin, size_t end) {
    return !tokenizer.IsSpecial(id) || !text.HasInput(begin, end);
  });
}

}  // namespace swaa
