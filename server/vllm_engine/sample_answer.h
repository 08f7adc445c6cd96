// What one sample says, in a gateway's messages.

#ifndef SWAA_SERVER_VLLM_ENGINE_SAMPLE_ANSWER_H_
#define SWAA_SERVER_VLLM_ENGINE_SAMPLE_ANSWER_H_

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "swaa/v1/generation.pb.h"
#include "vllm/grpc/engine/vllm_engine.pb.h"

namespace swaa::server {

// Collects the events of one sample, in order. Not thread-safe.
class SampleAnswer {
 public:
  struct Options {
    uint32_t index = 0;
    bool stream = false;
    bool prompt_logprobs = false;
    std::vector<int32_t> silent_stops;  // tokens that no match is told of
  };
  explicit SampleAnswer(Options options) : options_(std::move(options)) {}

  // The message that the event makes; none while there is nothing to say.
  std::optional<::vllm::grpc::engine::GenerateResponse> Take(const v1::GenerateResponse& event);

 private:
  using Response = ::vllm::grpc::engine::GenerateResponse;

  void TakePrompt(const v1::PromptLogprobs& prompt);
  std::optional<Response> TakeDelta(const v1::TokenDelta& delta);
  Response TakeFinished(const v1::Finished& finished);

  const Options options_;
  uint32_t prompt_tokens_ = 0;
  ::vllm::grpc::engine::GenerateComplete complete_;  // as far as it is known
  ::vllm::grpc::engine::InputLogProbs prompt_;
  bool chunk_sent_ = false;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_VLLM_ENGINE_SAMPLE_ANSWER_H_
