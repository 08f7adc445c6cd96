// The one model that a server serves, as its request handlers see it.

#ifndef SWAA_SERVER_GENERATE_SERVING_MODEL_H_
#define SWAA_SERVER_GENERATE_SERVING_MODEL_H_

#include <cstdint>
#include <optional>
#include <string>

#include "engine/checkpoint/model_config.h"
#include "engine/tokenizer/chat_format.h"
#include "engine/tokenizer/thinking.h"
#include "engine/tokenizer/tokenizer.h"
#include "server/generate/prompt_bound.h"
#include "server/generate/served_names.h"

namespace swaa::server {

// Immutable while serving; any thread. What it points to outlives it.
struct ServingModel {
  std::string served_name;
  ServedNames more_names;
  ModelConfig config;
  GenerationDefaults defaults;
  const Tokenizer* tokenizer = nullptr;
  const ChatFormat* chat_format = nullptr;  // null: no chat, and no_chat_reason says why
  std::string no_chat_reason;
  std::optional<ThinkingMarks> thinking_marks;  // of the sections that the model may write
  PromptBound prompt_bound;
  int32_t max_priority = 100;  // and -max_priority the least

  bool supports_thinking() const {
    return chat_format != nullptr && chat_format->supports_thinking();
  }
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_GENERATE_SERVING_MODEL_H_
