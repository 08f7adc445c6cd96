// Tests: which chat templates are recognised, and what is taken from their text. How whole
// conversations render is compared with transformers in tests/parity/tokenizer.

#include "engine/tokenizer/chat_format.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tokenizer/jinja_text.h"
#include "engine/tokenizer/utf8.h"
#include "tests/unit/tokenizer/test_tokenizers.h"

namespace swaa {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// A ChatML loop; {SYSTEM} stands for what comes before messages, {END} for what follows.
std::string ChatMlTemplate(const std::string& before, const std::string& after) {
  return "{% for message in messages %}" + before +
         "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + "
         "'\\n'}}{% endfor %}"
         "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}" +
         after;
}

std::unique_ptr<Tokenizer> WithTemplate(const std::string& text) {
  TokenizerData data = ByteData({}, {"<|im_start|>", "<|im_end|>", "<|eot_id|>"});
  data.chat_template = text;
  return MakeTokenizer(data);
}

// The rendered prompt as text, special tokens included.
std::string Rendered(const Tokenizer& tokenizer, const std::vector<ChatMessage>& messages) {
  const auto format = ChatFormatFor(tokenizer);
  if (!format.ok()) return std::string(format.status().message());
  std::string text;
  for (const int32_t id : (*format)->Render(tokenizer, messages, std::nullopt)) {
    text += tokenizer.TokenBytes(id);
  }
  return text;
}

TEST(JinjaTextTest, OneSpelling) {
  const JinjaText jinja = ReadJinja(
      "{#- note {{ 'x' }} #}{%-  if  messages[0][\"role\"]  ==  'a\\'b'  -%}\n {{- \"l1\nl2\\n\" + "
      "m['x'] }} {% endif %}");
  EXPECT_EQ(jinja.code, "{%if messages[0].role=='a\\'b'%}{{'l1\\nl2\\n'+m.x}}{%endif%}");
  EXPECT_THAT(jinja.strings, ElementsAre("role", "a'b", "l1\nl2\n", "x"));
  EXPECT_FALSE(jinja.has_outside_text);
  EXPECT_TRUE(ReadJinja("{{ a }} text").has_outside_text);
  for (const std::string broken : {"{{", "{{ 'abc", "{% if \"x\\", "{# x", "{", "{{-"})
    ReadJinja(broken);
}

TEST(ChatFormatTest, DefaultSystemPromptComesFromTheTemplate) {
  const std::string before =
      "{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe "
      "\\'nice\\'.<|im_end|>\n' }}"
      "{% endif %}";
  const auto with_default = WithTemplate(ChatMlTemplate(before, ""));
  EXPECT_EQ(Rendered(*with_default, {{ChatRole::kUser, "Hi"}}),
            "<|im_start|>system\nBe "
            "'nice'.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(
      Rendered(*with_default, {{ChatRole::kSystem, "S"}, {ChatRole::kUser, "Hi"}}),
      "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  const auto without = WithTemplate(ChatMlTemplate("", ""));
  EXPECT_EQ(Rendered(*without, {{ChatRole::kUser, "Hi"}}),
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
}

TEST(ChatFormatTest, SpecialTokensInContentsAreText) {
  const auto tokenizer = WithTemplate(ChatMlTemplate("", ""));
  const auto format = ChatFormatFor(*tokenizer);
  ASSERT_TRUE(format.ok()) << format.status();
  EXPECT_EQ((*format)->name(), "chatml");
  EXPECT_FALSE((*format)->supports_thinking());
  const std::vector<int32_t> ids = (*format)->Render(
      *tokenizer, {{ChatRole::kUser, "<|im_end|><|im_start|><|eot_id|>"}}, std::nullopt);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 256), 2);  // the user's turn and the answer
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 257), 1);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 258), 0);
}

TEST(ChatFormatTest, RefusesWhatItWouldRenderWrongly) {
  const auto code_of = [](const std::string& text) {
    return ChatFormatFor(*WithTemplate(text)).status().code();
  };
  EXPECT_EQ(code_of(""), absl::StatusCode::kNotFound);
  const std::vector<std::string> unsupported = {
      "{{ '[INST]' + messages[0]['content'] + '[/INST]' }}",
      ChatMlTemplate("", "{{ strftime_now('%d') }}"),
      ChatMlTemplate("{{ bos_token }}", ""),
      ChatMlTemplate("outside", ""),
      ChatMlTemplate("", "{% if enable_thinking %}{{ 'x' }}{% endif %}"),
      ChatMlTemplate("",
                     "{% if enable_thinking is defined and enable_thinking is false %}{{ "
                     "'<think>\\n\\n</think>\\n\\n' }}{% else %}{{ '<think>\\n' }}{% endif %}"),
      ChatMlTemplate("{% macro f(x) %}{{ x }}{% endmacro %}", ""),
      ChatMlTemplate("{% set c = message.content.split('</think>')[-1] %}", ""),
      "{{ '<|im_start|>' + message['role'] + ': ' + message['content'] + '<|im_end|>' }}",
      "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' }}",
      "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>' + message['content'] }}",
      "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] "
      "| trim + "
      "'<|eot_id|>' }}{{ 'Cutting Knowledge Date: December 2023' }}",
  };
  for (const std::string& text : unsupported) {
    EXPECT_EQ(code_of(text), absl::StatusCode::kUnimplemented) << text;
  }
  EXPECT_THAT(std::string(ChatFormatFor(*WithTemplate("{{ x }}")).status().message()),
              HasSubstr("chatml, llama3"));
  // The server quotes this to clients: the beginning of the template is cut between characters.
  const absl::Status cut =
      ChatFormatFor(*WithTemplate("{{ '" + std::string(115, 'x') + "é' }}")).status();
  EXPECT_EQ(ValidUtf8Prefix(std::string(cut.message())), cut.message().size()) << cut;
}

TEST(ChatFormatTest, ThinkingSwitch) {
  const auto tokenizer = MakeTokenizer(TinyData("qwen3_tiny"));
  const auto format = ChatFormatFor(*tokenizer);
  ASSERT_TRUE(format.ok()) << format.status();
  EXPECT_TRUE((*format)->supports_thinking());
  const std::vector<ChatMessage> messages = {{ChatRole::kUser, "Hi"}};
  const std::vector<int32_t> open = (*format)->Render(*tokenizer, messages, std::nullopt);
  EXPECT_EQ((*format)->Render(*tokenizer, messages, true), open);
  const std::vector<int32_t> closed = (*format)->Render(*tokenizer, messages, false);
  ASSERT_GT(closed.size(), open.size());
  EXPECT_EQ(closed[open.size()], *tokenizer->SpecialTokenId("<think>"));
}

}  // namespace
}  // namespace swaa
