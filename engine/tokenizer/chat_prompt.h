// From the text that a chat template wrote to tokens.

#ifndef SWAA_ENGINE_TOKENIZER_CHAT_PROMPT_H_
#define SWAA_ENGINE_TOKENIZER_CHAT_PROMPT_H_

#include <cstdint>
#include <vector>

#include "engine/jinja/text.h"
#include "engine/tokenizer/tokenizer.h"

namespace swaa {

// A special token is parsed where the template wrote all of its text; where any of it came from a
// message or a tool, it stays text. Added tokens that are not special (Qwen3's <think>) are parsed
// wherever they stand, as models are trained to see them in contents.
std::vector<int32_t> EncodeRendered(const Tokenizer& tokenizer, const jinja::Text& text);

}  // namespace swaa

#endif  // SWAA_ENGINE_TOKENIZER_CHAT_PROMPT_H_
