// How a token is drawn and when a generation ends. Plain values, checked by Validate.

#ifndef SWAA_ENGINE_SAMPLING_SAMPLING_PARAMS_H_
#define SWAA_ENGINE_SAMPLING_SAMPLING_PARAMS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kernels/sampling.h"

namespace swaa {

using kernels::SamplingParams;
using kernels::ScoredToken;

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
