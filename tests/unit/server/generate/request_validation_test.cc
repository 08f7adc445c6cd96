// What requests in order become; refusals are a table of the integration tests, but for those that
// the default model cannot show.

#include "server/generate/request_validation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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
  EXPECT_EQ(TokenizeInput(*valid, model_, std::nullopt), (std::vector<int32_t>{'a', 'b'}));
}

TEST_F(RequestValidationTest, ChatNeedsATemplate) {
  request_.mutable_chat()->add_messages()->set_role(v1::ROLE_USER);
  const absl::Status status = ValidateRequest(request_, model_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ErrorReason(status), "chat_not_supported");
  EXPECT_THAT(std::string(status.message()), HasSubstr("the model has no chat template"));
}

}  // namespace
}  // namespace swaa::server
