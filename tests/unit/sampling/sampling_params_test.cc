// Tests: what Validate refuses, and that it says which field, which value and what would be right.

#include "engine/sampling/sampling_params.h"

#include <cmath>
#include <functional>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace swaa {
namespace {

constexpr int32_t kVocab = 1000;
const float kNan = std::nanf("");
const float kInf = std::numeric_limits<float>::infinity();

struct ParamsCase {
  std::function<void(SamplingParams&)> change;
  std::string message;  // part of the refusal; empty: accepted
};

TEST(SamplingParamsTest, RangesAreChecked) {
  const std::vector<ParamsCase> cases = {
      {[](auto& p) {}, ""},
      {[](auto& p) { p.temperature = 0; }, ""},
      {[](auto& p) { p.temperature = 1e-30f; }, ""},
      {[](auto& p) { p.temperature = -0.1f; }, "sampling_params.temperature: -0.1 is no finite"},
      {[](auto& p) { p.temperature = kNan; }, "sampling_params.temperature: nan"},
      {[](auto& p) { p.temperature = kInf; }, "sampling_params.temperature: inf"},
      {[](auto& p) { p.top_p = 1.5f; }, "sampling_params.top_p: 1.5 is outside (0, 1]; "},
      {[](auto& p) { p.top_p = 0; }, "sampling_params.top_p: 0 is outside (0, 1]; "},
      {[](auto& p) { p.top_p = 1e-9f; }, ""},
      {[](auto& p) { p.top_p = kNan; }, "sampling_params.top_p: nan"},
      {[](auto& p) { p.top_k = 4000000000u; }, ""},
      {[](auto& p) { p.min_p = -0.5f; }, "sampling_params.min_p: -0.5 is outside [0, 1]; "},
      {[](auto& p) { p.min_p = 1; }, ""},
      {[](auto& p) { p.min_p = 1.25f; }, "sampling_params.min_p: 1.25"},
      {[](auto& p) { p.min_p = kNan; }, "sampling_params.min_p: nan"},
      {[](auto& p) { p.frequency_penalty = -2; }, ""},
      {[](auto& p) { p.frequency_penalty = 2.5f; },
       "sampling_params.frequency_penalty: 2.5 is outside [-2, 2]; 0 is neutral"},
      {[](auto& p) { p.presence_penalty = -3; }, "sampling_params.presence_penalty: -3"},
      {[](auto& p) { p.presence_penalty = kNan; }, "sampling_params.presence_penalty: nan"},
      {[](auto& p) { p.repetition_penalty = 0; },
       "sampling_params.repetition_penalty: 0 is outside (0, 2]; 1 is neutral"},
      {[](auto& p) { p.repetition_penalty = 2; }, ""},
      {[](auto& p) { p.repetition_penalty = kInf; }, "sampling_params.repetition_penalty: inf"},
      {[](auto& p) {
         p.logit_bias = {{0, -100}, {999, 100}};
       },
       ""},
      {[](auto& p) {
         p.logit_bias = {{1000, 1}};
       },
       "sampling_params.logit_bias[1000]: the vocabulary has 1000 tokens"},
      {[](auto& p) {
         p.logit_bias = {{4294967295u, 1}};
       },
       "logit_bias[4294967295]"},
      {[](auto& p) {
         p.logit_bias = {{4, 1}, {4, 1}};
       },
       "logit_bias[4]: follows [4]; name each token once"},
      {[](auto& p) {
         for (uint32_t i = 0; i < 300; ++i) p.logit_bias.emplace_back(i, 1);
       },
       ""},
      {[](auto& p) {
         for (uint32_t i = 0; i < 301; ++i) p.logit_bias.emplace_back(i, 1);
       },
       "sampling_params.logit_bias: 301 tokens given; at most 300"},
      {[](auto& p) {
         p.logit_bias = {{5, 100.5f}};
       },
       "logit_bias[5]: 100.5 is outside [-100, 100]"},
      {[](auto& p) {
         p.logit_bias = {{5, kNan}};
       },
       "logit_bias[5]: nan"},
      {[](auto& p) {
         p.logit_bias = {{5, -kInf}};
       },
       "logit_bias[5]: -inf"},
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    SamplingParams params;
    cases[i].change(params);
    const absl::Status status = Validate(params, kVocab);
    EXPECT_EQ(status.ok(), cases[i].message.empty()) << "case " << i << ": " << status;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr(cases[i].message));
    EXPECT_TRUE(status.ok() || status.code() == absl::StatusCode::kInvalidArgument) << status;
  }
}

struct StoppingCase {
  std::function<void(StoppingOptions&)> change;
  std::string message;
};

TEST(StoppingOptionsTest, LimitsAreChecked) {
  const std::vector<StoppingCase> cases = {
      {[](auto& o) {}, ""},
      {[](auto& o) { o.max_tokens = 0; }, "stopping_options.max_tokens: 0"},
      {[](auto& o) { o.max_tokens = 1; }, ""},
      {[](auto& o) { o.max_tokens = 4, o.min_tokens = 5; },
       "stopping_options.min_tokens: 5 exceeds max_tokens, 4"},
      {[](auto& o) { o.max_tokens = 5, o.min_tokens = 5; }, ""},
      {[](auto& o) { o.min_tokens = 5; }, ""},
      {[](auto& o) { o.stop_strings.assign(16, "x"); }, ""},
      {[](auto& o) { o.stop_strings.assign(17, "x"); },
       "stopping_options.stop_strings: 17 given; at most 16"},
      {[](auto& o) {
         o.stop_strings = {"a", ""};
       },
       "stopping_options.stop_strings[1]: empty"},
      {[](auto& o) { o.stop_strings = {std::string(1024, 'a')}; }, ""},
      {[](auto& o) { o.stop_strings = {std::string(1025, 'a')}; },
       "stopping_options.stop_strings[0]: 1025 bytes; at most 1024"},
      {[](auto& o) {
         o.stop_token_ids = {0, 999};
       },
       ""},
      {[](auto& o) {
         o.stop_token_ids = {0, 1000};
       },
       "stopping_options.stop_token_ids[1]: 1000 is no token"},
      {[](auto& o) { o.stop_token_ids = {-1}; }, "stopping_options.stop_token_ids[0]: -1"},
      {[](auto& o) { o.stop_token_ids.assign(1025, 1); }, "stop_token_ids: 1025 given"},
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    StoppingOptions options;
    cases[i].change(options);
    const absl::Status status = Validate(options, kVocab);
    EXPECT_EQ(status.ok(), cases[i].message.empty()) << "case " << i << ": " << status;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr(cases[i].message));
    EXPECT_TRUE(status.ok() || status.code() == absl::StatusCode::kInvalidArgument) << status;
  }
}

}  // namespace
}  // namespace swaa
