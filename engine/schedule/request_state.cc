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
                           Rank rank_in, int32_t max_output_in, const Tokenizer* tokenizer)
    : request(std::move(request_in)),
      sink(std::move(sink_in)),
      rank(rank_in),
      max_output(max_output_in),
      prefix_key(
          MakePrefixKey(MakePrefixScope(request.cache_salt,
                                        request.adapter == nullptr ? 0 : request.adapter->load),
                        request.recipe)),
      output(std::exchange(request.forced_output, {})),
      tokenizer_(tokenizer),
      sampling_(std::make_shared<const SamplingParams>(std::exchange(request.sampling, {}))) {
  request.cache_salt = {};  // the key has what is needed of it
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
  // The last output token's own position is never needed: nothing is drawn after it.
  return prompt_tokens() + std::min(known_output(), max_output - 1);
}

int32_t RequestState::most_cached_tokens() const {
  if (request.prompt_logprobs.has_value()) return 0;
  return prompt_tokens() - 1 + reported_output_;
}

int32_t RequestState::TokenAt(int32_t position) const {
  if (position < prompt_tokens()) return (*request.prompt)[position];
  const int32_t index = position - prompt_tokens();
  if (index < static_cast<int32_t>(output.size())) return output[index];
  SWAA_CHECK_EQ(index, known_output() - 1) << "request " << request.id;
  return kDrawnToken;
}

SlotSetup RequestState::MakeSlotSetup() const {
  SlotSetup setup{.slot = slot, .sampling = sampling_};
  if (sampling_->needs_history()) {
    setup.prompt = request.prompt;
    setup.output = output;
  }
  if (output.size() < request.stopping.min_tokens) setup.forbidden = forbidden_;
  return setup;
}

bool RequestState::IsWanted(int32_t next) const {
  const int32_t index = next - prompt_tokens();
  if (index < 0) return request.prompt_logprobs.has_value() && next >= reported_prompt_;
  return index < static_cast<int32_t>(output.size()) && request.output_logprobs.has_value() &&
         index >= reported_output_;
}

RowUses RequestState::UsesOf(int32_t first, int32_t count) const {
  RowUses uses;
  // The wanted ones lie side by side: those that are not are told already, or are the output behind
  // a prompt of which alone they are wanted, or the reverse.
  for (int32_t position = first; position < first + count; ++position) {
    if (!IsWanted(position + 1)) continue;
    if (uses.scored++ == 0) uses.first_scored = position;
  }
  const int32_t next = first + count - prompt_tokens();
  uses.draws = next == known_output() && next < max_output;
  return uses;
}

void RequestState::AppendLogitsRows(const RowUses& uses, int32_t first, int32_t count,
                                    int32_t first_row, std::vector<LogitsRow>* rows) const {
  for (int32_t position = uses.first_scored; position < uses.first_scored + uses.scored;
       ++position) {
    const int32_t index = position + 1 - prompt_tokens();
    const bool of_prompt = index < 0;
    rows->push_back(
        {.row = first_row + position - first,
         .slot = slot,
         .known_token = TokenAt(position + 1),
         .alternatives =
             (of_prompt ? request.prompt_logprobs : request.output_logprobs).value_or(-1),
         .output_index = static_cast<uint32_t>(std::max(0, index))});
  }
  if (!uses.draws) return;
  const auto index = static_cast<uint32_t>(first + count - prompt_tokens());
  rows->push_back({.row = first_row + count - 1,
                   .slot = slot,
                   .alternatives = request.output_logprobs.value_or(-1),
                   .output_index = index,
                   .forbid = index < request.stopping.min_tokens});
}

RequestProgress RequestState::Commit(int32_t first, int32_t count, const RowUses& uses,
                                     std::span<ScoredToken> results) {
  SWAA_CHECK_EQ(results.size(), static_cast<size_t>(uses.scored) + uses.draws)
      << "request " << request.id;
  RequestProgress progress;
  progress.prompt_logprobs_first = reported_prompt_;
  if (request.prompt_logprobs.has_value() && reported_prompt_ == 0) {
    // Nothing is before position 0: it has no log-probability.
    progress.prompt_logprobs.push_back({.token = TokenAt(0)});
    reported_prompt_ = 1;
  }
  for (int32_t next = first + 1; next <= first + count; ++next) {
    const int32_t scored_index = next - 1 - uses.first_scored;
    const bool scored = scored_index >= 0 && scored_index < uses.scored;
    const int32_t index = next - prompt_tokens();
    if (index < 0) {
      if (!scored) continue;
      progress.prompt_logprobs.push_back(std::move(results[scored_index]));
      reported_prompt_ = next + 1;
    } else if (uses.draws && next == first + count) {
      --draws_in_flight;
      output.push_back(results.back().token);
      ReportOutput(std::move(results.back()), request.output_logprobs.has_value(),
                   /*generated=*/true, &progress);
    } else if (index < static_cast<int32_t>(output.size()) && index >= reported_output_) {
      ScoredToken token;
      if (scored) token = std::move(results[scored_index]);
      token.token = output[index];
      ReportOutput(std::move(token), scored, /*generated=*/false, &progress);
    }
  }
  most_computed = std::max(most_computed, first + count);
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
