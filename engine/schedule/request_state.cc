// A request inside the engine.

#include "engine/schedule/request_state.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace swaa {
namespace {

bool Contains(const std::vector<int32_t>& values, int32_t value) {
  return std::find(values.begin(), values.end(), value) != values.end();
}

}  // namespace

RequestState::RequestState(GenerationRequest request_in, std::shared_ptr<GenerationSink> sink_in,
                           uint64_t arrival_in, int32_t max_output_in, int32_t num_layers,
                           const Tokenizer* tokenizer)
    : request(std::move(request_in)),
      sink(std::move(sink_in)),
      arrival(arrival_in),
      max_output(max_output_in),
      output(request.forced_output),
      pages(num_layers),
      tokenizer_(tokenizer),
      sampling_(std::make_shared<const SamplingParams>(request.sampling)) {
  forbidden_ = request.stopping.stop_token_ids;
  if (!request.stopping.ignore_eos) {
    const std::vector<int32_t>& eos = tokenizer_->eos_ids();
    forbidden_.insert(forbidden_.end(), eos.begin(), eos.end());
    const std::vector<int32_t>& more = request.stopping.end_token_ids;
    forbidden_.insert(forbidden_.end(), more.begin(), more.end());
  }
  if (!request.stopping.stop_strings.empty()) {
    stop_matcher_.emplace(request.stopping.stop_strings);
  }
}

int32_t RequestState::target() const {
  const auto known = static_cast<int32_t>(output.size());
  // The last output token's own position is never needed: nothing is drawn after it.
  return prompt_tokens() + (known == max_output ? known - 1 : known);
}

int32_t RequestState::most_cached_tokens() const {
  if (request.prompt_logprobs.has_value()) return 0;
  return prompt_tokens() - 1 + reported_output_;
}

int32_t RequestState::TokenAt(int32_t position) const {
  const int32_t prompt = prompt_tokens();
  return position < prompt ? request.prompt[position] : output[position - prompt];
}

LogitsUse RequestState::UseOfLogits(int32_t position) const {
  const int32_t next = position + 1;
  if (next < prompt_tokens()) {
    const bool wanted = request.prompt_logprobs.has_value() && next >= reported_prompt_;
    return wanted ? LogitsUse::kScore : LogitsUse::kNone;
  }
  const int32_t index = next - prompt_tokens();
  const auto known = static_cast<int32_t>(output.size());
  if (index < known) {
    const bool wanted = request.output_logprobs.has_value() && index >= reported_output_;
    return wanted ? LogitsUse::kScore : LogitsUse::kNone;
  }
  return index == known && index < max_output ? LogitsUse::kDraw : LogitsUse::kNone;
}

LogitsRow RequestState::MakeLogitsRow(int32_t position, int32_t row) const {
  LogitsRow logits;
  logits.row = row;
  const int32_t next = position + 1;
  const bool of_prompt = next < prompt_tokens();
  logits.alternatives =
      (of_prompt ? request.prompt_logprobs : request.output_logprobs).value_or(-1);
  if (UseOfLogits(position) == LogitsUse::kScore) {
    logits.known_token = TokenAt(next);
    return logits;
  }
  logits.sampling = sampling_;
  logits.output_index = output.size();
  if (sampling_->needs_history()) {
    logits.prompt = request.prompt;
    logits.output = output;
  }
  if (output.size() < request.stopping.min_tokens) logits.forbidden = forbidden_;
  return logits;
}

RequestProgress RequestState::Commit(int32_t first, int32_t count, std::span<ScoredToken> results) {
  SWAA_CHECK_EQ(first, computed) << "request " << request.id;
  RequestProgress progress;
  progress.prompt_logprobs_first = reported_prompt_;
  if (request.prompt_logprobs.has_value() && reported_prompt_ == 0) {
    // Nothing is before position 0: it has no log-probability.
    progress.prompt_logprobs.push_back({.token = TokenAt(0)});
    reported_prompt_ = 1;
  }
  size_t used = 0;
  for (int32_t position = first; position < first + count; ++position) {
    const LogitsUse use = UseOfLogits(position);
    ScoredToken scored;
    if (use != LogitsUse::kNone) {
      SWAA_CHECK_LT(used, results.size()) << "request " << request.id;
      scored = std::move(results[used++]);
    }
    const int32_t next = position + 1;
    const int32_t index = next - prompt_tokens();
    if (index < 0) {
      if (use == LogitsUse::kNone) continue;
      progress.prompt_logprobs.push_back(std::move(scored));
      reported_prompt_ = next + 1;
    } else if (use == LogitsUse::kDraw) {
      output.push_back(scored.token);
      ReportOutput(std::move(scored), request.output_logprobs.has_value(), /*generated=*/true,
                   &progress);
    } else if (index < static_cast<int32_t>(output.size()) && index >= reported_output_) {
      scored.token = output[index];
      ReportOutput(std::move(scored), use == LogitsUse::kScore, /*generated=*/false, &progress);
    }
  }
  SWAA_CHECK_EQ(used, results.size()) << "request " << request.id;
  computed = first + count;
  most_computed = std::max(most_computed, computed);
  return progress;
}

std::optional<StopCause> RequestState::StopOf(int32_t token) const {
  const bool ends =
      Contains(tokenizer_->eos_ids(), token) || Contains(request.stopping.end_token_ids, token);
  if (!request.stopping.ignore_eos && ends) {
    return StopCause{.kind = StopCause::Kind::kEosToken, .token = token};
  }
  if (Contains(request.stopping.stop_token_ids, token)) {
    return StopCause{.kind = StopCause::Kind::kStopToken, .token = token};
  }
  return std::nullopt;
}

// Forced tokens are never cut: only a generated token ends a generation, though a stop string may
// have begun in the forced ones.
void RequestState::ReportOutput(ScoredToken scored, bool has_logprob, bool generated,
                                RequestProgress* progress) {
  const StoppingOptions& stopping = request.stopping;
  OutputToken token{.scored = std::move(scored), .has_logprob = has_logprob};
  const int32_t id = token.scored.token;
  ++reported_output_;
  std::optional<StopCause> stop = generated ? StopOf(id) : std::nullopt;
  token.shown = stop.has_value() ? stopping.include_stop_in_output : !tokenizer_->IsSpecial(id);
  uint64_t held_back = 0;
  if (token.shown) {
    const std::string_view bytes = tokenizer_->TokenBytes(id);
    text_bytes_ += bytes.size();
    std::optional<StopMatcher::Match> match;
    if (stop_matcher_.has_value()) match = stop_matcher_->Append(bytes);
    const bool counts = generated && reported_output_ >= static_cast<int64_t>(stopping.min_tokens);
    if (match.has_value() && counts && !stop.has_value()) {
      const std::string& text = stopping.stop_strings[match->string_index];
      stop = StopCause{.kind = StopCause::Kind::kStopString, .stop_string = text};
      const uint64_t shown_to =
          match->begin + (stopping.include_stop_in_output ? text.size() : size_t{0});
      held_back = text_bytes_ - shown_to;
    }
  }
  if (stop.has_value()) {
    progress->finished = FinishReason::kStop;
    progress->stop = *std::move(stop);
  } else if (reported_output_ == max_output) {
    progress->finished = FinishReason::kLength;
  } else if (stop_matcher_.has_value()) {
    held_back = stop_matcher_->held_back_bytes();
  }
  token.visible_bytes = text_bytes_ - held_back;
  progress->tokens.push_back(std::move(token));
}

}  // namespace swaa
