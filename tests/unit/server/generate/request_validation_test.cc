// What requests in order become; refusals are a table of the integration tests, but for those that
// the default model cannot show.

#include "server/generate/request_validation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "engine/tokenizer/byte_alphabet.h"
#include "server/generate/errors.h"
#include "tests/unit/testing/fake_device.h"

namespace swaa::server {
namespace {

using ::testing::HasSubstr;

class RequestValidationTest : public ::testing::Test {
 protected:
  RequestValidationTest() {
    model_.served_name = "served";
    model_.tokenizer = tokenizer_.get();
    model_.no_chat_reason = "the model has no chat template";
    request_.set_prompt("ab");
  }

  std::unique_ptr<Tokenizer> tokenizer_ = ::swaa::testing::MakeByteTokenizer();
  ServingModel model_;
  v1::GenerateRequest request_;
};

TEST_F(RequestValidationTest, AbsentSamplingTakesTheModelsDefaultsAndZeroIsZero) {
  model_.defaults = {.temperature = 0.6f, .top_p = 0.9f, .top_k = 20, .repetition_penalty = 1.1f};
  SamplingParams sampling = ValidateRequest(request_, model_)->sampling;
  EXPECT_EQ(sampling.temperature, 0.6f);
  EXPECT_EQ(sampling.top_p, 0.9f);
  EXPECT_EQ(sampling.top_k, 20u);
  EXPECT_EQ(sampling.repetition_penalty, 1.1f);
  request_.mutable_sampling_params()->set_temperature(0);
  request_.mutable_sampling_params()->set_top_k(0);
  sampling = ValidateRequest(request_, model_)->sampling;
  EXPECT_EQ(sampling.temperature, 0);
  EXPECT_EQ(sampling.top_k, 0u);
  model_.defaults = {};
  v1::GenerateRequest bare;
  bare.set_prompt("x");
  EXPECT_EQ(ValidateRequest(bare, model_)->sampling.temperature, 1);
}

TEST_F(RequestValidationTest, SeedIsRandomUnlessGiven) {
  EXPECT_NE(ValidateRequest(request_, model_)->sampling.seed,
            ValidateRequest(request_, model_)->sampling.seed);
  request_.mutable_sampling_params()->set_seed(0);
  EXPECT_EQ(ValidateRequest(request_, model_)->sampling.seed, 0u);
}

TEST_F(RequestValidationTest, LimitsThemselvesAreAllowed) {
  request_.set_request_id(std::string(128, '~'));
  request_.set_model("served");
  request_.mutable_response_options()->set_output_logprobs(20);
  request_.mutable_response_options()->set_tokens_per_delta(0);
  request_.mutable_stopping_options()->set_max_tokens(2);
  request_.mutable_stopping_options()->set_min_tokens(2);
  request_.mutable_forced_output_ids()->add_ids(256);
  request_.mutable_forced_output_ids()->add_ids(0);
  request_.set_priority(-5);
  request_.set_cache_salt("salt");
  const absl::StatusOr<ValidRequest> valid = ValidateRequest(request_, model_);
  ASSERT_TRUE(valid.ok()) << valid.status();
  EXPECT_EQ(valid->output_logprobs, 20);
  EXPECT_EQ(valid->prompt_logprobs, std::nullopt);
  EXPECT_EQ(valid->tokens_per_delta, 0u);
  EXPECT_EQ(valid->forced_output, (std::vector<int32_t>{256, 0}));
  EXPECT_EQ(valid->priority, -5);
  EXPECT_EQ(valid->cache_salt, "salt");
  EXPECT_EQ(*TokenizeInput(*valid, model_, std::nullopt), (std::vector<int32_t>{'a', 'b'}));
}

TEST_F(RequestValidationTest, ChatNeedsATemplate) {
  request_.mutable_chat()->add_messages()->set_role(v1::ROLE_USER);
  const absl::Status status = ValidateRequest(request_, model_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ErrorReason(status), "chat_not_supported");
  EXPECT_THAT(std::string(status.message()), HasSubstr("the model has no chat template"));
}

TEST_F(RequestValidationTest, AStopStringOfASpecialTokenStopsAtTheToken) {
  request_.mutable_stopping_options()->add_stop_strings("<end>");
  request_.mutable_stopping_options()->add_stop_strings("end");
  const auto valid = ValidateRequest(request_, model_);
  ASSERT_TRUE(valid.ok()) << valid.status();
  EXPECT_THAT(valid->stopping.stop_token_ids, ::testing::ElementsAre(256));
  EXPECT_THAT(valid->stopping.stop_strings, ::testing::ElementsAre("<end>", "end"));
}

// A model of bytes with a chat template.
class ChatValidationTest : public ::testing::Test {
 protected:
  ChatValidationTest() {
    TokenizerData data;
    for (int32_t byte = 0; byte < 256; ++byte) {
      data.tokens.emplace_back(ByteToAlphabet(static_cast<uint8_t>(byte)));
    }
    data.kinds.assign(256, TokenKind::kNormal);
    for (const char* special : {"<end>", "<turn>"}) {
      data.tokens.emplace_back(special);
      data.kinds.push_back(TokenKind::kSpecial);
    }
    data.eos_ids = {256};
    data.chat_template =
        "{% for m in messages %}{{ m.role[0] ~ m.content }}<turn>{% endfor %}"
        "{% for t in tools or [] %}{{ t }}{% endfor %}"
        "{% if messages | length > 3 %}{{ raise_exception('too many turns') }}{% endif %}"
        "{% if add_generation_prompt %}:{% endif %}";
    tokenizer_ = *Tokenizer::Create(std::move(data));
    format_ = *ChatFormat::Create(*tokenizer_);
    model_.tokenizer = tokenizer_.get();
    model_.chat_format = format_.get();
    Add(v1::ROLE_USER, "x");
  }

  void Add(v1::Role role, const std::string& content) {
    v1::ChatMessage* message = request_.mutable_chat()->add_messages();
    message->set_role(role);
    message->set_content(content);
  }

  // The prompt's text, or the reason and words of the refusal.
  std::string Prompt() {
    const auto valid = ValidateRequest(request_, model_);
    if (!valid.ok()) return valid.status().ToString();
    const auto tokens = TokenizeInput(*valid, model_, std::nullopt);
    if (!tokens.ok()) {
      return absl::StrCat(ErrorReason(tokens.status()), ": ",
                          std::string(tokens.status().message()));
    }
    std::string text;
    for (const int32_t token : *tokens) text += tokenizer_->TokenBytes(token);
    return text;
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<ChatFormat> format_;
  ServingModel model_;
  v1::GenerateRequest request_;
};

TEST_F(ChatValidationTest, AChatEndsAtItsTurnsEnd) {
  EXPECT_EQ(Prompt(), "ux<turn>:");
  EXPECT_THAT(ValidateRequest(request_, model_)->stopping.end_token_ids,
              ::testing::ElementsAre(257));
  request_.set_prompt("x");
  EXPECT_THAT(ValidateRequest(request_, model_)->stopping.end_token_ids, ::testing::IsEmpty());
}

TEST_F(ChatValidationTest, ToolsRolesFieldsAndAnAnswerThatGoesOn) {
  request_.mutable_chat()->set_tools_json("[1.0]");
  EXPECT_EQ(Prompt(), "ux<turn>1.0:");
  Add(v1::ROLE_TOOL, "");
  request_.mutable_chat()->mutable_messages(1)->set_fields_json("{\"content\": 5}");
  EXPECT_EQ(Prompt(), "ux<turn>t5<turn>1.0:");
  Add(v1::ROLE_ASSISTANT, "so ");
  request_.mutable_chat()->set_continue_final_message(true);
  EXPECT_EQ(Prompt(), "ux<turn>t5<turn>aso ");
}

TEST_F(ChatValidationTest, WhatTheTemplateRefusesIsTheClientsError) {
  for (int i = 0; i < 3; ++i) Add(v1::ROLE_USER, "y");
  EXPECT_THAT(Prompt(),
              HasSubstr("invalid_chat: the model's chat template, line 1: too many turns"));
  request_.mutable_chat()->set_tools_json("{");
  EXPECT_THAT(Prompt(), HasSubstr("invalid_chat: chat.tools_json: "));
}

}  // namespace
}  // namespace swaa::server
