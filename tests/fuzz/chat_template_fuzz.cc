// Fuzz target: the text of a chat template, a zero byte, and what a user says. A template that can
// be executed renders conversations or refuses them; no special token comes from what a user said.

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
      {{ChatRole::kUser, std::string(said), ""}},
      {{ChatRole::kSystem, "Be brief.", ""},
       {ChatRole::kUser, std::string(said), ""},
       {ChatRole::kAssistant, std::string(said), "{\"tool_calls\": [{\"name\": \"f\"}]}"},
       {ChatRole::kTool, "{}", ""},
       {ChatRole::kAssistant, "And", ""}},
  };
  for (const std::vector<ChatMessage>& messages : conversations) {
    for (const std::optional<bool> thinking : {std::optional<bool>(), {true}, {false}}) {
      if (thinking.has_value() && !format.supports_thinking()) continue;
      Conversation conversation;
      conversation.messages = messages;
      conversation.thinking = thinking;
      conversation.continue_final_message = messages.size() > 1;
      conversation.tools_json = said.size() % 2 == 0 ? "" : "[{\"name\": \"f\", \"x\": 1.5}]";
      const absl::StatusOr<std::vector<int32_t>> ids = format.Render(conversation);
      if (!ids.ok()) {
        CheckRefusal(ids.status());
        continue;
      }
      for (const int32_t id : *ids) SWAA_CHECK(id >= 0 && id < tokenizer.vocab_size()) << id;
    }
  }
}

}  // namespace

void FuzzChatTemplate(std::string_view input) {
  const std::vector<std::string_view> parts = SplitAtZeros(input, 2);
  const std::unique_ptr<Tokenizer> tokenizer = MakeByteTokenizer(parts[0]);
  const absl::StatusOr<std::unique_ptr<ChatFormat>> format = ChatFormat::Create(*tokenizer);
  if (!format.ok()) return CheckRefusal(format.status());
  Render(*tokenizer, **format, parts[1]);
}

}  // namespace swaa::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  swaa::fuzz::FuzzChatTemplate(swaa::fuzz::AsText(data, size));
  return 0;
}
