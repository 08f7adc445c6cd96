// How a token is drawn and when a generation ends. Plain values, checked by Validate.

#ifndef SWAA_ENGINE_SAMPLING_SAMPLING_PARAMS_H_
#define SWAA_ENGINE_SAMPLING_SAMPLING_PARAMS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace swaa {

// Order of application: bias, penalties, temperature, top-k, top-p, min-p.
struct SamplingParams {
  float temperature = 1;         // 0 is greedy
  float top_p = 1;               // (0, 1]
  uint32_t top_k = 0;            // 0 keeps every token
  float min_p = 0;               // [0, 1]
  float frequency_penalty = 0;   // [-2, 2], counts output
  float presence_penalty = 0;    // [-2, 2], counts output
  float repetition_penalty = 1;  // (0, 2], counts prompt and output; 1 is neutral
  uint64_t seed = 0;
  std::map<uint32_t, float> logit_bias = {};

  bool needs_history() const {
    return frequency_penalty != 0 || presence_penalty != 0 || repetition_penalty != 1;
  }
};

struct StoppingOptions {
  std::optional<uint32_t> max_tokens;  // at least 1; absent: up to the context
  uint32_t min_tokens = 0;             // before that, end and stop tokens are never drawn
  std::vector<std::string> stop_strings;
  std::vector<int32_t> stop_token_ids;
  // End tokens besides the tokenizer's, such as the one that closes a chat's turn.
  std::vector<int32_t> end_token_ids;
  bool ignore_eos = false;
  bool include_stop_in_output = false;
};

// INVALID_ARGUMENT with field, value and way out. Field names are the proto's.
absl::Status Validate(const SamplingParams& params, int32_t vocab_size);
absl::Status Validate(const StoppingOptions& options, int32_t vocab_size);

}  // namespace swaa

#endif  // SWAA_ENGINE_SAMPLING_SAMPLING_PARAMS_H_
