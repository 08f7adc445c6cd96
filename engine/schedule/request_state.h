// A request inside the engine: what is known of it, what is computed, what its client was told.

#ifndef SWAA_ENGINE_SCHEDULE_REQUEST_STATE_H_
#define SWAA_ENGINE_SCHEDULE_REQUEST_STATE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/cache/prefix_cache.h"
#include "engine/cache/prefix_key.h"
#include "engine/cache/sequence_pages.h"
#include "engine/device/step.h"
#include "engine/generation.h"
#include "engine/sampling/stop_matcher.h"
#include "engine/schedule/engine_load.h"
#include "engine/schedule/rank.h"
#include "engine/tokenizer/tokenizer.h"

namespace swaa {

// What the logits of some rows of one request are for: decided when the rows are submitted, as by
// the time that they are committed more may be known.
struct RowUses {
  int32_t first_scored = 0;  // position
  int32_t scored = 0;        // positions whose next token, which is known, is scored
  bool draws = false;        // behind the last row the next token is drawn
};

// What a request cost so far: GenerationStats says of what.
struct RequestCost {
  double device_seconds = 0;
  double full_attention_device_seconds = 0;
  double recomputed_device_seconds = 0;
  double step_seconds = 0;
  bool known = true;  // the step-time model knew all of its steps
};

// What a step did to one request, to be told to its client.
struct RequestProgress {
  std::vector<ScoredToken> prompt_logprobs;  // positions prompt_logprobs_first ...
  int32_t prompt_logprobs_first = 0;
  std::vector<OutputToken> tokens;
  std::optional<FinishReason> finished;
  StopCause stop;
};

// The engine thread's. The known tokens are the prompt and `output`: forced tokens first, then
// generated ones; behind them are the draws in flight, which only the device may know. A preempted
// request keeps its output and computes all of it again, as forced tokens are computed.
class RequestState {
 public:
  // `max_output` is the request's max_tokens, cut to what context and pool allow.
  RequestState(GenerationRequest request, std::shared_ptr<GenerationSink> sink, Rank rank,
               int32_t max_output, const Tokenizer* tokenizer);

  bool shadow() const { return rank.shadow; }

  static bool RanksBefore(const std::shared_ptr<RequestState>& a,
                          const std::shared_ptr<RequestState>& b) {
    return a->rank < b->rank;
  }

  int32_t prompt_tokens() const { return static_cast<int32_t>(request.prompt->size()); }
  // Output tokens, those included that a submitted step draws.
  int32_t known_output() const { return static_cast<int32_t>(output.size()) + draws_in_flight; }
  // Positions to submit before the next token can be drawn, or before the end if no more is to be
  // drawn.
  int32_t target() const;
  // The token at a known position, or kDrawnToken.
  int32_t TokenAt(int32_t position) const;
  KnownTokens known_tokens() const { return {*request.prompt, output}; }

  void CountQueued(int32_t change) {
    load->queued += change;
    if (adapter_load != nullptr) adapter_load->queued += change;
  }
  void CountRunning(int32_t change) {
    load->running += change;
    if (adapter_load != nullptr) adapter_load->running += change;
  }

  // Output tokens that the client was told of.
  int32_t reported_output() const { return reported_output_; }

  // The longest prefix that may come from the cache: what is behind it is still to be told, and
  // where prompt log-probabilities are wanted, nothing is.
  int32_t most_cached_tokens() const;

  // What the device must know of the slot that the request takes.
  SlotSetup MakeSlotSetup() const;
  // What the logits of positions first .. first + count - 1, all of one phase, are for.
  RowUses UsesOf(int32_t first, int32_t count) const;
  // The rows of the step that want them; position `first` is row `first_row`.
  void AppendLogitsRows(const RowUses& uses, int32_t first, int32_t count, int32_t first_row,
                        std::vector<LogitsRow>* rows) const;

  // Takes the result of positions first .. first + count - 1; `results` holds one for each of their
  // uses. Returns what the client is to be told.
  RequestProgress Commit(int32_t first, int32_t count, const RowUses& uses,
                         std::span<ScoredToken> results);

  GenerationRequest request;
  std::shared_ptr<GenerationSink> sink;
  Rank rank;
  int32_t max_output = 0;
  PrefixKey prefix_key;
  RecipeLoad* load = nullptr;          // of its label, while it is queued or runs
  RecipeLoad* adapter_load = nullptr;  // of its adapter's name, likewise; null: the base model
  std::vector<int32_t> output;

  int32_t computed = 0;         // positions whose rows are committed
  int32_t submitted = 0;        // and those in submitted steps
  int32_t most_submitted = 0;   // before any preemption, too
  int32_t most_computed = 0;    // likewise
  int32_t draws_in_flight = 0;  // submitted and not committed
  int32_t rows_in_flight = 0;   // groups of rows, likewise
  uint32_t life = 0;       // how often it was preempted: rows of an earlier life compute nothing
  uint64_t last_step = 0;  // the last that reads its pages or its slot
  bool ended = false;

  int32_t slot = -1;            // -1: queued
  int32_t recipe = -1;          // its number in SpanClasses, while it runs
  SequencePages pages;          // of no layers while queued
  PrefixCache::Lookup lookup;   // while queued
  PrefixCache::Cursor cursor;   // while running: how far its blocks are registered
  int32_t cached_tokens = 0;    // that the first admission found
  int64_t peak_pages = 0;       // held in an earlier life
  int32_t planned_target = -1;  // for which pages_to_target was computed
  int64_t pages_to_target = 0;  // PeakPages
  int64_t loaded_pages = 0;     // as `load` counts them
  int64_t loaded_full_pages = 0;
  bool accepted = false;
  int32_t preemptions = 0;
  RequestCost cost;
  SteadyTime admitted_at;  // first time
  SteadyTime first_token_at = SteadyTime::max();

 private:
  // Whether the log-probability of the known token at position `next` is still to be told.
  bool IsWanted(int32_t next) const;
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
