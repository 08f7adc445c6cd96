// What a client may ask of a draw and of a generation's end.

#include "engine/sampling/sampling_params.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace swaa {
namespace {

constexpr float kMaxLogitBias = 100;
constexpr size_t kMaxStopStrings = 16;
constexpr size_t kMaxStopStringBytes = 1024;
constexpr size_t kMaxStopTokenIds = 1024;

// The range [low, high], or (low, high] when `open_below`. NaN lies in none.
struct Range {
  float low;
  float high;
  bool open_below = false;
};

absl::Status CheckRange(const char* field, float value, Range range, const char* advice) {
  const bool above = range.open_below ? value > range.low : value >= range.low;
  if (above && value <= range.high) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("sampling_params.", field, ": ", value,
                                                 " is outside ", range.open_below ? "(" : "[",
                                                 range.low, ", ", range.high, "]; ", advice));
}

absl::Status CheckLogitBias(const SamplingParams& params, int32_t vocab_size) {
  for (const auto& [id, bias] : params.logit_bias) {
    const auto token = static_cast<uint32_t>(id);
    if (token >= static_cast<uint32_t>(vocab_size)) {
      return absl::InvalidArgumentError(
          absl::StrCat("sampling_params.logit_bias[", token, "]: the vocabulary has ", vocab_size,
                       " tokens; name ids from 0 to ", vocab_size - 1));
    }
    if (!(std::fabs(bias) <= kMaxLogitBias)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "sampling_params.logit_bias[", token, "]: ", bias, " is outside [", -kMaxLogitBias, ", ",
          kMaxLogitBias, "]; +-", kMaxLogitBias, " already forces or forbids a token"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckStopStrings(const std::vector<std::string>& stop_strings) {
  if (stop_strings.size() > kMaxStopStrings) {
    return absl::InvalidArgumentError(
        absl::StrCat("stopping_options.stop_strings: ", stop_strings.size(), " given; at most ",
                     kMaxStopStrings));
  }
  for (size_t i = 0; i < stop_strings.size(); ++i) {
    if (stop_strings[i].empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("stopping_options.stop_strings[", i,
                       "]: empty; leave it out to stop at end tokens only"));
    }
    if (stop_strings[i].size() > kMaxStopStringBytes) {
      return absl::InvalidArgumentError(absl::StrCat("stopping_options.stop_strings[", i,
                                                     "]: ", stop_strings[i].size(),
                                                     " bytes; at most ", kMaxStopStringBytes));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckStopTokens(const std::vector<int32_t>& ids, int32_t vocab_size) {
  if (ids.size() > kMaxStopTokenIds) {
    return absl::InvalidArgumentError(absl::StrCat("stopping_options.stop_token_ids: ", ids.size(),
                                                   " given; at most ", kMaxStopTokenIds));
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= vocab_size) {
      return absl::InvalidArgumentError(
          absl::StrCat("stopping_options.stop_token_ids[", i, "]: ", ids[i],
                       " is no token; the vocabulary has ids 0 to ", vocab_size - 1));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Validate(const SamplingParams& params, int32_t vocab_size) {
  if (!(params.temperature >= 0) || std::isinf(params.temperature)) {
    return absl::InvalidArgumentError(
        absl::StrCat("sampling_params.temperature: ", params.temperature,
                     " is no finite number >= 0; 0 is greedy"));
  }
  SWAA_RETURN_IF_ERROR(
      CheckRange("top_p", params.top_p, {0, 1, /*open_below=*/true}, "1 keeps every token"));
  SWAA_RETURN_IF_ERROR(CheckRange("min_p", params.min_p, {0, 1}, "0 keeps every token"));
  SWAA_RETURN_IF_ERROR(
      CheckRange("frequency_penalty", params.frequency_penalty, {-2, 2}, "0 is neutral"));
  SWAA_RETURN_IF_ERROR(
      CheckRange("presence_penalty", params.presence_penalty, {-2, 2}, "0 is neutral"));
  SWAA_RETURN_IF_ERROR(CheckRange("repetition_penalty", params.repetition_penalty,
                                  {0, 2, /*open_below=*/true}, "1 is neutral"));
  return CheckLogitBias(params, vocab_size);
}

absl::Status Validate(const StoppingOptions& options, int32_t vocab_size) {
  if (options.max_tokens == 0u) {
    return absl::InvalidArgumentError(
        "stopping_options.max_tokens: 0 asks for nothing; set at least 1, or leave it out to "
        "generate up to the model's context");
  }
  if (options.max_tokens.has_value() && options.min_tokens > *options.max_tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("stopping_options.min_tokens: ", options.min_tokens, " exceeds max_tokens, ",
                     *options.max_tokens, "; lower it or raise max_tokens"));
  }
  SWAA_RETURN_IF_ERROR(CheckStopStrings(options.stop_strings));
  return CheckStopTokens(options.stop_token_ids, vocab_size);
}

}  // namespace swaa
