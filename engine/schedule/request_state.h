// A request inside the engine: what is known of it, what is computed, what its client was told.

#ifndef SWAA_ENGINE_SCHEDULE_REQUEST_STATE_H_
#define SWAA_ENGINE_SCHEDULE_REQUEST_STATE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/cache/prefix_cache.h"
#include "engine/cache/sequence_pages.h"
#include "engine/device/step.h"
#include "engine/generation.h"
#include "engine/sampling/stop_matcher.h"
#include "engine/schedule/plan.h"
#include "engine/tokenizer/tokenizer.h"

namespace swaa {

// What the logits of a computed position are for.
enum class LogitsUse { kNone, kScore, kDraw };

// What a step did to one request, to be told to its client.
struct RequestProgress {
  std::vector<ScoredToken> prompt_logprobs;  // positions prompt_logprobs_first ...
  int32_t prompt_logprobs_first = 0;
  std::vector<OutputToken> tokens;
  std::optional<FinishReason> finished;
  StopCause stop;
};

// The engine thread's. The known tokens are the prompt and `output`: forced tokens first, then
// generated ones. A preempted request keeps its output and computes all of it again, as forced
// tokens are computed.
class RequestState {
 public:
  // `max_output` is the request's max_tokens, cut to what context and pool allow.
  RequestState(GenerationRequest request, std::shared_ptr<GenerationSink> sink, uint64_t arrival,
               int32_t max_output, int32_t num_layers, const Tokenizer* tokenizer);

  int32_t prompt_tokens() const { return static_cast<int32_t>(request.prompt.size()); }
  // Positions to compute before the next token can be drawn, or before the end if no more is to be
  // drawn.
  int32_t target() const;
  // The token at a known position.
  int32_t TokenAt(int32_t position) const;

  // Output tokens that the client was told of.
  int32_t reported_output() const { return reported_output_; }

  // The longest prefix that may come from the cache: what is behind it is still to be told, and
  // where prompt log-probabilities are wanted, nothing is.
  int32_t most_cached_tokens() const;

  LogitsUse UseOfLogits(int32_t position) const;
  // The row of the step that wants them; UseOfLogits(position) is not kNone.
  LogitsRow MakeLogitsRow(int32_t position, int32_t row) const;

  // Takes the result of positions first .. first + count - 1; `results` holds one for each of them
  // whose logits are used. Advances `computed` and returns what the client is to be told.
  RequestProgress Commit(int32_t first, int32_t count, std::span<ScoredToken> results);

  GenerationRequest request;
  std::shared_ptr<GenerationSink> sink;
  uint64_t arrival = 0;
  int32_t max_output = 0;
  std::vector<int32_t> output;
  int32_t computed = 0;
  int32_t most_computed = 0;  // before any preemption, too
  int32_t slot = -1;          // -1: queued
  SequencePages pages;
  PrefixCache::Hit hit;        // while queued: the last look-up
  PrefixCache::Cursor cursor;  // while running: how far its blocks are registered
  int32_t cached_tokens = 0;   // that the first admission found
  bool accepted = false;
  int32_t preemptions = 0;
  absl::Time admitted_at;  // first time
  absl::Time first_token_at = absl::InfiniteFuture();

 private:
  void ReportOutput(ScoredToken scored, bool has_logprob, bool generated,
                    RequestProgress* progress);
  std::optional<StopCause> StopOf(int32_t token) const;

  const Tokenizer* tokenizer_;
  std::shared_ptr<const SamplingParams> sampling_;
  std::vector<int32_t> forbidden_;  // while fewer than min_tokens are out
  int32_t reported_prompt_ = 0;     // prompt positions whose log-probability was sent
  int32_t reported_output_ = 0;
  std::optional<StopMatcher> stop_matcher_;
  uint64_t text_bytes_ = 0;
};

}  // namespace swaa

#endif  // SWAA_ENGINE_SCHEDULE_REQUEST_STATE_H_
