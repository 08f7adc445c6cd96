// What the engine takes and gives: a generation request, fully resolved, and the events of its
// life.

#ifndef SWAA_ENGINE_GENERATION_H_
#define SWAA_ENGINE_GENERATION_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/device/adapter.h"
#include "engine/recipe/recipe.h"
#include "engine/sampling/sampling_params.h"
#include "kernels/sampling.h"

namespace swaa {

using kernels::ScoredToken;

// The engine's clock: never set back or forward, so that no request ends and no duration is wrong
// because someone corrected the time of day.
using SteadyClock = std::chrono::steady_clock;
using SteadyTime = SteadyClock::time_point;

enum class RequestClass {
  kServing,
  // Computes a request again, to compare recipes: only in steps of its own, while no serving
  // request needs one. Reads and fills no prefix cache, is no part of any load, and is dropped by a
  // drain.
  kShadow,
};

struct GenerationRequest {
  std::string id;  // unique among live requests; not empty
  // At least one token. Shared, never copied: a prompt may be megabytes.
  std::shared_ptr<const std::vector<int32_t>> prompt;
  std::vector<int32_t> forced_output;  // positions from the prompt's end on
  Recipe recipe;
  std::string recipe_label;  // registered name or "custom": for load and metrics
  AdapterHandle adapter;     // null: the base model
  SamplingParams sampling;
  StoppingOptions stopping;
  std::optional<int32_t> output_logprobs;  // alternatives per token
  std::optional<int32_t> prompt_logprobs;
  RequestClass request_class = RequestClass::kServing;
  // Higher is served earlier, within +-2^20 (schedule/rank.h); a shadow has none.
  int32_t priority = 0;
  std::string cache_salt;
  SteadyTime arrival = SteadyClock::now();
  SteadyTime deadline = SteadyTime::max();
};

enum class FinishReason { kStop, kLength, kCancelled };

// What ended a generation with kStop.
struct StopCause {
  enum class Kind { kNone, kEosToken, kStopToken, kStopString };
  Kind kind = Kind::kNone;
  int32_t token = -1;       // kEosToken, kStopToken
  std::string stop_string;  // kStopString
};

// What a request cost, as the engine measured it.
struct GenerationStats {
  absl::Duration queue_time;
  absl::Duration prefill_time;         // from admission to the first token
  absl::Duration decode_time;          // from the first token to the end
  absl::Duration time_to_first_token;  // from arrival; zero if there was none
  int64_t peak_kv_bytes = 0;
  int64_t full_attention_kv_bytes = 0;
  int64_t attended_keys = 0;
  int64_t full_attention_attended_keys = 0;
  int32_t preemptions = 0;
  int32_t prompt_tokens = 0;
  int32_t cached_prompt_tokens = 0;
  int32_t completion_tokens = 0;
  // What its own tokens and keys cost of the device's time (StepTimeModel), and what they would
  // have cost under full attention; what was computed again after a preemption is in neither.
  // Absent if the model did not know one of its steps yet. A step that was under way when the
  // request ended is in none of these.
  std::optional<double> device_seconds;
  std::optional<double> full_attention_device_seconds;
  double recomputed_device_seconds = 0;
  double step_seconds = 0;            // the whole time of the steps that it was in
  int64_t prefill_attended_keys = 0;  // of attended_keys, those of prompt positions
};

struct GenerationResult {
  FinishReason reason = FinishReason::kStop;
  StopCause stop;
  GenerationStats stats;
};

// A new output token. The output's text is made of the bytes (Tokenizer::TokenBytes) of its shown
// tokens.
struct OutputToken {
  ScoredToken scored;  // logprob and top as asked for
  bool has_logprob = false;
  // False for special tokens, and for a token that ended the generation, unless
  // include_stop_in_output.
  bool shown = true;
  // How many bytes of the output's text so far may be sent: fewer than there are while a stop
  // string may be under way; at a stop string, the bytes before it (all, with
  // include_stop_in_output). Never falls.
  uint64_t visible_bytes = 0;
};

// Receives the events of one request, in order, on the engine thread; must not block, must not
// throw and must not call the engine. OnAccepted at most once; then tokens; then exactly one of
// OnFinished and OnFailed, last. OnFailed without OnAccepted is a refusal.
class GenerationSink {
 public:
  virtual ~GenerationSink() = default;
  virtual void OnAccepted() = 0;
  // Prompt positions first_position .. ; position 0 has no log-probability.
  virtual void OnPromptLogprobs(int32_t first_position, std::vector<ScoredToken> tokens) = 0;
  virtual void OnTokens(std::vector<OutputToken> tokens) = 0;
  virtual void OnFinished(const GenerationResult& result) = 0;
  virtual void OnFailed(const absl::Status& status, const GenerationStats& stats) = 0;
};

}  // namespace swaa

#endif  // SWAA_ENGINE_GENERATION_H_
