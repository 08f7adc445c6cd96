// Turns the engine's tokens into the messages of a stream.

#include "server/generate/delta_builder.h"

#include <algorithm>
#include <utility>

namespace swaa::server {
namespace {

// What a token's message costs at most around its own bytes: a tag and a length.
constexpr size_t kFieldOverhead = 8;
// Room for text and framing in an event.
constexpr size_t kEventReserve = 1024;

void FillTokenInfo(const ScoredToken& scored, bool has_logprob, v1::TokenInfo* info) {
  info->set_token_id(static_cast<uint32_t>(scored.token));
  if (!has_logprob) return;
  info->set_logprob(scored.logprob);
  for (const auto& [token, logprob] : scored.top) {
    v1::TokenLogprob* top = info->add_top_logprobs();
    top->set_token_id(static_cast<uint32_t>(token));
    top->set_logprob(logprob);
  }
}

uint64_t Microseconds(absl::Duration duration) {
  return static_cast<uint64_t>(std::max<int64_t>(0, absl::ToInt64Microseconds(duration)));
}

v1::FinishReason ReasonToProto(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return v1::FINISH_REASON_STOP;
    case FinishReason::kLength:
      return v1::FINISH_REASON_LENGTH;
    case FinishReason::kCancelled:
      return v1::FINISH_REASON_CANCELLED;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

void FillStopMatch(const StopCause& stop, v1::Finished* finished) {
  switch (stop.kind) {
    case StopCause::Kind::kNone:
      return;
    case StopCause::Kind::kEosToken:
      finished->mutable_stop_match()->set_eos_token_id(static_cast<uint32_t>(stop.token));
      return;
    case StopCause::Kind::kStopToken:
      finished->mutable_stop_match()->set_stop_token_id(static_cast<uint32_t>(stop.token));
      return;
    case StopCause::Kind::kStopString:
      finished->mutable_stop_match()->set_stop_string(stop.stop_string);
      return;
  }
}

}  // namespace

void DeltaBuilder::Flush(std::vector<v1::GenerateResponse>* out) {
  if (delta_.tokens().empty() && delta_.text().empty()) return;
  *out->emplace_back().mutable_token_delta() = std::move(delta_);
  delta_.Clear();
  delta_bytes_ = 0;
}

void DeltaBuilder::BeginSection(bool thinking, std::vector<v1::GenerateResponse>* out) {
  if (delta_.is_reasoning() != thinking) Flush(out);
  delta_.set_is_reasoning(thinking);
}

void DeltaBuilder::AppendText(const std::string& text, bool thinking,
                              std::vector<v1::GenerateResponse>* out) {
  if (text.empty()) return;
  BeginSection(thinking, out);
  delta_.mutable_text()->append(text);
}

void DeltaBuilder::ShowUpTo(uint64_t end, std::vector<v1::GenerateResponse>* out) {
  end = std::min({end, visible_bytes_, sections_.decided_bytes(), sent_bytes_ + held_.size()});
  while (sent_bytes_ < end) {
    const ThinkingSections::Piece piece = sections_.PieceAt(sent_bytes_);
    const size_t count = std::min(end, piece.end) - sent_bytes_;
    AppendText(detokenizer_.AppendBytes(std::string_view(held_).substr(0, count)), piece.thinking,
               out);
    held_.erase(0, count);
    sent_bytes_ += count;
    sent_thinking_ = piece.thinking;
  }
}

void DeltaBuilder::Take(WaitingToken token, std::vector<v1::GenerateResponse>* out) {
  const size_t info_bytes = token.info.ByteSizeLong() + kFieldOverhead;
  // An invalid byte may become three; what was held back may come free with this token.
  if (delta_bytes_ + delta_.text().size() + info_bytes + 3 * held_.size() + kEventReserve >
      kMaxEventBytes) {
    Flush(out);
  }
  // What was held back and comes free with this token may be of the section before.
  ShowUpTo(token.begin, out);
  BeginSection(*token.thinking, out);
  if (*token.thinking) ++reasoning_tokens_;
  delta_bytes_ += info_bytes;
  *delta_.add_tokens() = std::move(token.info);
  const bool is_full =
      tokens_per_delta_ != 0 && static_cast<uint32_t>(delta_.tokens_size()) >= tokens_per_delta_;
  ShowUpTo(token.end, out);
  if (is_full) Flush(out);
}

void DeltaBuilder::TakeDecided(std::vector<v1::GenerateResponse>* out) {
  for (; !waiting_.empty(); waiting_.pop_front()) {
    WaitingToken& token = waiting_.front();
    if (!token.thinking.has_value()) {
      if (token.begin >= sections_.decided_bytes()) return;
      token.thinking = sections_.IsThinking(token.begin);
    }
    Take(std::move(token), out);
  }
}

void DeltaBuilder::Add(const std::vector<OutputToken>& tokens,
                       std::vector<v1::GenerateResponse>* out) {
  for (const OutputToken& token : tokens) {
    const std::string_view bytes =
        token.shown ? tokenizer_->TokenBytes(token.scored.token) : std::string_view();
    WaitingToken& added = waiting_.emplace_back();
    FillTokenInfo(token.scored, token.has_logprob, &added.info);
    added.begin = sent_bytes_ + held_.size();
    added.end = added.begin + bytes.size();
    added.thinking = sections_.Append(token.scored.token, bytes);
    held_.append(bytes);
    visible_bytes_ = std::max(visible_bytes_, token.visible_bytes);
    TakeDecided(out);
  }
}

void DeltaBuilder::Finish(bool show_rest, std::vector<v1::GenerateResponse>* out) {
  sections_.Finish();
  if (show_rest) visible_bytes_ = sent_bytes_ + held_.size();
  TakeDecided(out);
  ShowUpTo(visible_bytes_, out);
  AppendText(detokenizer_.Flush(), sent_thinking_, out);
  Flush(out);
}

void AppendPromptLogprobs(int32_t first_position, const std::vector<ScoredToken>& tokens,
                          std::vector<v1::GenerateResponse>* out) {
  v1::PromptLogprobs* event = nullptr;
  size_t bytes = 0;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const int32_t position = first_position + static_cast<int32_t>(i);
    v1::TokenInfo info;
    FillTokenInfo(tokens[i], /*has_logprob=*/position > 0, &info);
    const size_t cost = info.ByteSizeLong() + kFieldOverhead;
    if (event == nullptr || bytes + cost + kEventReserve > kMaxEventBytes) {
      event = out->emplace_back().mutable_prompt_logprobs();
      event->set_first_position(static_cast<uint32_t>(position));
      bytes = 0;
    }
    bytes += cost;
    *event->add_tokens() = std::move(info);
  }
}

v1::GenerateResponse FinishedEvent(const GenerationResult& result, uint32_t reasoning_tokens) {
  v1::GenerateResponse response;
  v1::Finished* finished = response.mutable_finished();
  finished->set_finish_reason(ReasonToProto(result.reason));
  FillStopMatch(result.stop, finished);
  const GenerationStats& from = result.stats;
  v1::Usage* usage = finished->mutable_usage();
  usage->set_prompt_tokens(from.prompt_tokens);
  usage->set_completion_tokens(from.completion_tokens);
  usage->set_cached_prompt_tokens(from.cached_prompt_tokens);
  usage->set_reasoning_tokens(reasoning_tokens);
  v1::RequestStats* stats = finished->mutable_stats();
  stats->set_queue_time_us(Microseconds(from.queue_time));
  stats->set_prefill_time_us(Microseconds(from.prefill_time));
  stats->set_decode_time_us(Microseconds(from.decode_time));
  stats->set_time_to_first_token_us(Microseconds(from.time_to_first_token));
  stats->set_peak_kv_cache_bytes(from.peak_kv_bytes);
  stats->set_full_attention_kv_cache_bytes(from.full_attention_kv_bytes);
  stats->set_attended_keys(from.attended_keys);
  stats->set_full_attention_attended_keys(from.full_attention_attended_keys);
  stats->set_preemptions(from.preemptions);
  stats->set_prefill_attended_keys(from.prefill_attended_keys);
  if (from.device_seconds.has_value()) {
    stats->set_attributed_device_time_us(Microseconds(absl::Seconds(*from.device_seconds)));
  }
  return response;
}

}  // namespace swaa::server
