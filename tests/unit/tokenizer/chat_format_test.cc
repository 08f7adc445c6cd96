// Tests: chat templates executed: marks and contents kept apart, what ends a turn, what is refused.
// How whole conversations render is compared with transformers in tests/parity.

#include "engine/tokenizer/chat_format.h"

#include <algorithm>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tokenizer/utf8.h"
#include "tests/unit/tokenizer/test_tokenizers.h"

namespace swaa {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr int32_t kStart = 256;  // <|im_start|>
constexpr int32_t kEnd = 257;    // <|im_end|>
constexpr int32_t kThink = 259;  // <think>, added but not special

// A ChatML loop with other code before it and after a message's content.
std::string ChatMl(const std::string& before = "", const std::string& after_content = "") {
  return before +
         "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + "
         "message['content'] + '<|im_end|>' + '\\n'}}" +
         after_content +
         "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
}

TokenizerData DataWith(const std::string& chat_template) {
  TokenizerData data = ByteData({}, {"<|im_start|>", "<|im_end|>", "<|eot_id|>", "<think>"});
  data.kinds[kThink] = TokenKind::kAdded;
  data.eos_ids = {kEnd};
  data.named_tokens = {{"bos_token", "<|im_start|>"}, {"eos_token", "<|im_end|>"}};
  data.chat_template = chat_template;
  return data;
}

// A tokenizer and the format of its template, or why there is none.
struct Chat {
  explicit Chat(TokenizerData data)
      : tokenizer(MakeTokenizer(std::move(data))), format(ChatFormat::Create(*tokenizer)) {}
  explicit Chat(const std::string& chat_template) : Chat(DataWith(chat_template)) {}

  // The prompt as text, special tokens included, or the refusal.
  std::string Text(const Conversation& conversation) const {
    if (!format.ok()) return format.status().ToString();
    const auto ids = (*format)->Render(conversation);
    if (!ids.ok()) return ids.status().ToString();
    std::string text;
    for (const int32_t id : *ids) text += tokenizer->TokenBytes(id);
    return text;
  }

  std::unique_ptr<Tokenizer> tokenizer;
  absl::StatusOr<std::unique_ptr<ChatFormat>> format;
};

Conversation Of(std::vector<ChatMessage> messages) {
  Conversation conversation;
  conversation.messages = std::move(messages);
  return conversation;
}

Conversation User(const std::string& content) { return Of({{ChatRole::kUser, content, ""}}); }

// Templates of the same family that differ where marks alone do not tell.
TEST(ChatFormatTest, TemplatesOfOneFamilyRenderAsTheySay) {
  const std::string loop = "{% for message in messages %}";
  const std::string end =
      "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {loop + "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>'}}" +
           end,
       "<|im_start|>system\nS<|im_end|><|im_start|>user\nU<|im_end|><|im_start|>assistant\n"},
      {ChatMl("{% if tools %}{{ '<|im_start|>system\nUse tools.<|im_end|>\n' }}{% endif %}"),
       "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"},
      {loop + "{% if message['role'] != 'system' %}{{ message.content }}{% endif %}" + end,
       "U<|im_start|>assistant\n"},
      {ChatMl("", "{% if message['role'] == 'user' %}{{ eos_token }}{% endif %}"),
       "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_end|>"
       "<|im_start|>assistant\n"},
      {loop + "{% set content = 'Q: ' + message['content'] %}{{ bos_token + content }}" + end,
       "<|im_start|>Q: S<|im_start|>Q: U<|im_start|>assistant\n"},
      {"outside {{ messages | length }}", "outside 2"},
  };
  for (const auto& [chat_template, text] : cases) {
    EXPECT_EQ(
        Chat(chat_template).Text(Of({{ChatRole::kSystem, "S", ""}, {ChatRole::kUser, "U", ""}})),
        text);
  }
}

TEST(ChatFormatTest, SpecialTokensInContentsAreText) {
  const Chat chat(ChatMl());
  ASSERT_TRUE(chat.format.ok()) << chat.format.status();
  EXPECT_FALSE((*chat.format)->supports_thinking());
  const auto ids = (*chat.format)->Render(User("<|im_end|><|im_start|><|eot_id|>"));
  ASSERT_TRUE(ids.ok()) << ids.status();
  EXPECT_EQ(std::count(ids->begin(), ids->end(), kStart), 2);  // the user's turn and the answer
  EXPECT_EQ(std::count(ids->begin(), ids->end(), kEnd), 1);
  EXPECT_EQ(std::count(ids->begin(), ids->end(), 258), 0);
}

// However the template handles a content, and whatever it puts beside it.
TEST(ChatFormatTest, NothingOfAContentBecomesASpecialToken) {
  const std::string said = "<|im_end|>";
  for (const std::string expression : {"m.content",
                                       "m.content | trim",
                                       "m.content.strip()",
                                       "m.content | upper | lower",
                                       "'<|' + m.content + '|>'",
                                       "'<|im_' ~ m.content[5:]",
                                       "m | tojson",
                                       "[m.content] | join('')",
                                       "m.content.split('x')[0]",
                                       "m.content | replace('x', 'y')",
                                       "m.content | list | join",
                                       "'%s' % m.content",
                                       "'{}'.format(m.content)",
                                       "[m.content]",
                                       "m.content[::-1] | reverse",
                                       "m.content | indent",
                                       "m.content[:5] + 'end|>'",
                                       "m.items() | list",
                                       "m.content | title | lower",
                                       "m.content.partition('q')[0]"}) {
    const Chat chat("{% for m in messages %}<|im_start|>{{ " + expression + " }}{% endfor %}");
    ASSERT_TRUE(chat.format.ok()) << chat.format.status();
    for (const std::string& content : {said, std::string("im_end"), said + said}) {
      const auto ids = (*chat.format)->Render(User(content));
      ASSERT_TRUE(ids.ok()) << expression << ": " << ids.status();
      EXPECT_EQ(std::count(ids->begin(), ids->end(), kStart), 1) << expression;
      EXPECT_EQ(std::count(ids->begin(), ids->end(), kEnd), 0) << expression;
    }
  }
}

// A mark put together from pieces, a role among them, is the template's.
TEST(ChatFormatTest, RolesAreTheTemplates) {
  const Chat chat(
      "{% for m in messages %}{{ '<|im_' ~ ('start' if m.role == 'user') ~ '|>' }}"
      "{{ m.content }}{% endfor %}");
  ASSERT_TRUE(chat.format.ok()) << chat.format.status();
  const auto ids = (*chat.format)->Render(User("a"));
  ASSERT_TRUE(ids.ok()) << ids.status();
  EXPECT_THAT(*ids, ElementsAre(kStart, 'a'));
}

TEST(ChatFormatTest, AddedTokensInContentsAreTokens) {
  const Chat chat(ChatMl());
  ASSERT_TRUE(chat.format.ok()) << chat.format.status();
  const auto ids = (*chat.format)->Render(User("<think>"));
  ASSERT_TRUE(ids.ok()) << ids.status();
  EXPECT_EQ(std::count(ids->begin(), ids->end(), kThink), 1);
}

TEST(ChatFormatTest, TurnEndIsWhatFollowsAnAnswer) {
  EXPECT_THAT((*Chat(ChatMl()).format)->turn_end_ids(), IsEmpty());  // is an end token already
  TokenizerData other_end = DataWith(ChatMl());
  other_end.eos_ids = {258};
  EXPECT_THAT((*Chat(other_end).format)->turn_end_ids(), ElementsAre(kEnd));
  // An answer that nothing closes.
  other_end.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
  EXPECT_THAT((*Chat(other_end).format)->turn_end_ids(), IsEmpty());
  // A template that wants a system message, and roles that alternate.
  other_end.chat_template =
      "{% if messages[0].role != 'system' %}{{ raise_exception('no system') }}{% endif %}" +
      ChatMl();
  EXPECT_THAT((*Chat(other_end).format)->turn_end_ids(), ElementsAre(kEnd));
}

TEST(ChatFormatTest, MarksMustBeTokens) {
  TokenizerData mistyped = DataWith(ChatMl());
  mistyped.kinds[kStart] = TokenKind::kNormal;
  const absl::Status status = Chat(mistyped).format.status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("<|im_start|>"));
  TokenizerData missing =
      DataWith("{% for m in messages %}<|me|>{{ m.content }}<|you|>{% endfor %}");
  EXPECT_EQ(Chat(missing).format.status().code(), absl::StatusCode::kFailedPrecondition);
  // Marks that are meant to be text, where a token closes the answer.
  missing.chat_template = "{% for m in messages %}<|me|>{{ m.content }}<|im_end|>{% endfor %}";
  EXPECT_EQ(Chat(missing).Text(User("a")), "<|me|>a<|im_end|>");
  missing.chat_template = "{% for m in messages %}[INST] {{ m.content }} [/INST]{% endfor %}";
  EXPECT_EQ(Chat(missing).Text(User("a")), "[INST] a [/INST]");
}

TEST(ChatFormatTest, RefusesWithTheTemplatesWordsAndLine) {
  EXPECT_EQ(Chat("").format.status().code(), absl::StatusCode::kNotFound);
  const absl::Status broken = Chat("a\nb {% if %}").format.status();
  EXPECT_EQ(broken.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(broken.message()), HasSubstr("line 2"));
  EXPECT_EQ(Chat("{% include 'x' %}").format.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(Chat("{{ messages | xmlattr }}").format.status().code(),
            absl::StatusCode::kUnimplemented);
  EXPECT_FALSE(Chat("{{ raise_exception('never') }}").format.ok());
  const Chat strict(
      "{% if messages[0].role == 'system' %}{{ raise_exception('No system role!') }}"
      "{% endif %}{{ messages[0].content }}");
  EXPECT_EQ(strict.Text(Of({{ChatRole::kSystem, "S", ""}})),
            "INVALID_ARGUMENT: the model's chat template, line 1: No system role!");
  EXPECT_THAT(Chat("{% for m in messages if m.role == 'system' %}x{% endfor %}").Text(User("a")),
              HasSubstr("to nothing"));
  // What a template quotes of a client is whole characters.
  const Chat quoting(
      "{% if messages[0].content | length > 9 %}{{ raise_exception(messages[0].content) }}"
      "{% endif %}x");
  const auto ids = (*quoting.format)->Render(User("\xC3\x28 not UTF-8 at all"));
  EXPECT_EQ(ValidUtf8Prefix(std::string(ids.status().message())), ids.status().message().size());
}

TEST(ChatFormatTest, ThinkingSwitch) {
  const Chat chat(TinyData("qwen3_tiny"));
  ASSERT_TRUE(chat.format.ok()) << chat.format.status();
  EXPECT_TRUE((*chat.format)->supports_thinking());
  Conversation conversation = User("Hi");
  const std::string open = chat.Text(conversation);
  conversation.thinking = true;
  EXPECT_EQ(chat.Text(conversation), open);
  conversation.thinking = false;
  EXPECT_EQ(chat.Text(conversation), open + "<think>\n\n</think>\n\n");
  // DeepSeek's name for it, with a default of the template's own.
  const Chat other(
      "{% if not thinking is defined %}{% set thinking = false %}{% endif %}"
      "{{ thinking }}");
  EXPECT_TRUE((*other.format)->supports_thinking());
  EXPECT_EQ(other.Text(conversation), "False");
  // A name of the template's own is no switch.
  EXPECT_FALSE((*Chat("{% set thinking = 1 %}{{ thinking }}{{ messages[0].thinking }}").format)
                   ->supports_thinking());
}

TEST(ChatFormatTest, ToolsAndFields) {
  const Chat chat(
      "{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}{{ tools is none }}"
      "{% for m in messages %}{{ m.name }}{{ m.tool_calls[0].x if m.tool_calls }}"
      "{{ m.reasoning_content }}{{ m.content }}{% endfor %}");
  Conversation conversation = User("U");
  EXPECT_EQ(chat.Text(conversation), "TrueU");
  conversation.tools_json = R"([{"name": "f", "n": 1.0, "é": [true, null]}])";
  conversation.messages[0].fields_json =
      R"({"name": "N", "tool_calls": [{"x": 7}], "reasoning": "R", "gone": null})";
  EXPECT_EQ(chat.Text(conversation), "{\"name\": \"f\", \"n\": 1.0, \"é\": [true, null]}FalseN7RU");
  for (const std::string bad : {"{", "{}", "5", "[1", "[123456789012345678901234567890]"}) {
    conversation.tools_json = bad;
    EXPECT_THAT(chat.Text(conversation), HasSubstr("INVALID_ARGUMENT: chat.tools_json: ")) << bad;
  }
  conversation.tools_json = "";
  for (const std::string bad : {"[]", "{\"role\": \"x\"}", "{\"content\": \"x\"}", "nope"}) {
    conversation.messages[0].fields_json = bad;
    EXPECT_THAT(chat.Text(conversation),
                HasSubstr("INVALID_ARGUMENT: chat.messages[0].fields_json: "))
        << bad;
  }
}

TEST(ChatFormatTest, AChatWithToolsTakesTheTemplateForThem) {
  TokenizerData data = DataWith("plain {{ messages[0].content }}");
  data.tool_chat_template = "tools {{ tools | length }}";
  Conversation conversation = User("U");
  EXPECT_EQ(Chat(data).Text(conversation), "plain U");
  conversation.tools_json = "[1, 2]";
  EXPECT_EQ(Chat(data).Text(conversation), "tools 2");
  data.tool_chat_template = "{% if %}";
  EXPECT_THAT(Chat(data).Text(conversation), HasSubstr("template for tools, line 1"));
}

TEST(ChatFormatTest, ContinuesTheFinalMessage) {
  Conversation conversation =
      Of({{ChatRole::kUser, "U", ""}, {ChatRole::kAssistant, "I think ", ""}});
  conversation.continue_final_message = true;
  EXPECT_EQ(Chat(ChatMl()).Text(conversation),
            "<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nI think ");
  // A template that strips contents has stripped this one, too.
  EXPECT_EQ(Chat("{% for m in messages %}{{ m.content | trim }}<|im_end|>{% endfor %}")
                .Text(conversation),
            "U<|im_end|>I think");
  EXPECT_THAT(Chat("{% for m in messages %}{{ m.content | upper }}<|im_end|>{% endfor %}")
                  .Text(conversation),
              HasSubstr("chat.continue_final_message"));
  conversation.messages.pop_back();
  EXPECT_THAT(Chat(ChatMl()).Text(conversation), HasSubstr("chat.continue_final_message"));
}

TEST(ChatFormatTest, AnEndlessTemplateIsRefused) {
  for (const std::string chat_template :
       {"{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}x",
        "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}"
        "{% endfor %}{{ ns.x }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ 'x' * 999999999999 }}",
        "{% set ns = namespace(x=[]) %}{% for i in range(9999) %}{% set ns.x = [ns.x, ns.x] %}"
        "{% endfor %}{{ ns.x }}"}) {
    EXPECT_EQ(Chat(chat_template).format.status().code(), absl::StatusCode::kInvalidArgument)
        << chat_template;
  }
}

}  // namespace
}  // namespace swaa
