// What one sample says, in a gateway's messages.

#include "server/vllm_engine/sample_answer.h"

#include <algorithm>
#include <utility>

namespace swaa::server {
namespace {

namespace vllm_pb = ::vllm::grpc::engine;

void AddAlternatives(const v1::TokenInfo& token, vllm_pb::TopLogProbs* out) {
  for (const v1::TokenLogprob& top : token.top_logprobs()) {
    out->add_values(top.logprob());
    out->add_token_ids(top.token_id());
  }
}

void AddOutput(const v1::TokenInfo& token, vllm_pb::OutputLogProbs* out) {
  out->add_token_logprobs(token.logprob());
  out->add_token_ids(token.token_id());
  AddAlternatives(token, out->add_top_logprobs());
}

const char* ReasonName(v1::FinishReason reason) {
  switch (reason) {
    case v1::FINISH_REASON_STOP:
      return "stop";
    case v1::FINISH_REASON_LENGTH:
      return "length";
    default:
      return "abort";
  }
}

}  // namespace

std::optional<vllm_pb::GenerateResponse> SampleAnswer::Take(const v1::GenerateResponse& event) {
  switch (event.event_case()) {
    case v1::GenerateResponse::kAccepted:
      prompt_tokens_ = event.accepted().prompt_tokens();
      return std::nullopt;
    case v1::GenerateResponse::kPromptLogprobs:
      TakePrompt(event.prompt_logprobs());
      return std::nullopt;
    case v1::GenerateResponse::kTokenDelta:
      return TakeDelta(event.token_delta());
    case v1::GenerateResponse::kFinished:
      return TakeFinished(event.finished());
    case v1::GenerateResponse::EVENT_NOT_SET:
      break;
  }
  return std::nullopt;
}

void SampleAnswer::TakePrompt(const v1::PromptLogprobs& prompt) {
  for (const v1::TokenInfo& token : prompt.tokens()) {
    vllm_pb::InputTokenLogProb* logprob = prompt_.add_token_logprobs();
    if (token.has_logprob()) logprob->set_value(token.logprob());
    prompt_.add_token_ids(token.token_id());
    AddAlternatives(token, prompt_.add_top_logprobs());
  }
}

std::optional<vllm_pb::GenerateResponse> SampleAnswer::TakeDelta(const v1::TokenDelta& delta) {
  // Text alone: the gateway makes its own of the tokens.
  if (delta.tokens().empty()) return std::nullopt;
  Response response;
  vllm_pb::GenerateStreamChunk* chunk = response.mutable_chunk();
  for (const v1::TokenInfo& token : delta.tokens()) {
    complete_.add_output_ids(token.token_id());
    if (options_.stream) chunk->add_token_ids(token.token_id());
    if (!token.has_logprob()) continue;
    AddOutput(token, options_.stream ? chunk->mutable_output_logprobs()
                                     : complete_.mutable_output_logprobs());
  }
  if (!options_.stream) return std::nullopt;
  chunk->set_prompt_tokens(prompt_tokens_);
  chunk->set_completion_tokens(static_cast<uint32_t>(complete_.output_ids_size()));
  chunk->set_index(options_.index);
  if (options_.prompt_logprobs && !chunk_sent_) *chunk->mutable_input_logprobs() = prompt_;
  chunk_sent_ = true;
  return response;
}

vllm_pb::GenerateResponse SampleAnswer::TakeFinished(const v1::Finished& finished) {
  Response response;
  vllm_pb::GenerateComplete* complete = response.mutable_complete();
  *complete = std::move(complete_);
  complete->set_finish_reason(ReasonName(finished.finish_reason()));
  complete->set_prompt_tokens(finished.usage().prompt_tokens());
  complete->set_completion_tokens(finished.usage().completion_tokens());
  complete->set_cached_tokens(finished.usage().cached_prompt_tokens());
  complete->set_index(options_.index);
  if (options_.prompt_logprobs && !chunk_sent_) *complete->mutable_input_logprobs() = prompt_;
  const v1::StopMatch& match = finished.stop_match();
  if (match.match_case() == v1::StopMatch::kStopString) {
    complete->set_matched_stop_str(match.stop_string());
  } else if (match.match_case() == v1::StopMatch::kStopTokenId) {
    const auto token = static_cast<int32_t>(match.stop_token_id());
    const auto& silent = options_.silent_stops;
    if (std::find(silent.begin(), silent.end(), token) == silent.end()) {
      complete->set_matched_token_id(match.stop_token_id());
    }
  }
  return response;
}

}  // namespace swaa::server
