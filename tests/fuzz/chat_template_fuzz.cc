// Fuzz target: the text of a chat template, a zero byte, and what a user says. What is recognised
// as a format renders conversations.

#include <optional>
#include <utility>

#include "base/check.h"
#include "engine/tokenizer/chat_format.h"
#include "engine/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz_input.h"

namespace swaa::fuzz {
namespace {

void Render(const Tokenizer& tokenizer, const ChatFormat& format, std::string_view said) {
  const std::vector<std::vector<ChatMessage>> conversations = {
      {{ChatRole::kUser, std::string(said)}},
      {{ChatRole::kSystem, "Be brief."},
       {ChatRole::kUser, std::string(said)},
       {ChatRole::kAssistant, std::string(said)},
       {ChatRole::kUser, "And now?"}},
  };
  for (const std::vector<ChatMessage>& messages : conversations) {
    for (const std::optional<bool> thinking : {std::optional<bool>(), {true}, {false}}) {
      if (thinking.has_value() && !format.supports_thinking()) continue;
      for (const int32_t id : format.Render(tokenizer, messages, thinking)) {
        SWAA_CHECK(id >= 0 && id < tokenizer.vocab_size()) << id;
      }
    }
  }
}

}  // namespace

void FuzzChatTemplate(std::string_view input) {
  const std::vector<std::string_view> parts = SplitAtZeros(input, 2);
  const std::unique_ptr<Tokenizer> tokenizer = MakeByteTokenizer(parts[0]);
  const absl::StatusOr<std::unique_ptr<ChatFormat>> format = ChatFormatFor(*tokenizer);
  if (!format.ok()) return CheckRefusal(format.status());
  Render(*tokenizer, **format, parts[1]);
}

}  // namespace swaa::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  swaa::fuzz::FuzzChatTemplate(swaa::fuzz::AsText(data, size));
  return 0;
}
