// Every refusal of a Generate request that needs neither the tokenizer's work nor the
// engine.

#ifndef SWAA_SERVER_GENERATE_REQUEST_VALIDATION_H_
#define SWAA_SERVER_GENERATE_REQUEST_VALIDATION_H_

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/sampling/sampling_params.h"
#include "engine/tokenizer/chat_format.h"
#include "kernels/sampling.h"
#include "server/generate/serving_model.h"
#include "swaa/v1/generation.pb.h"

namespace swaa::server {

inline constexpr size_t kMaxRequestIdBytes = 128;
inline constexpr uint32_t kMaxLogprobAlternatives = 20;
// What a request may make the server keep or walk through beside its text and its tokens.
inline constexpr int kMaxCacheSaltBytes = 128;
inline constexpr int kMaxNameBytes = 256;  // model, recipe_name, lora_name, experiment_unit_id
inline constexpr int kMaxLogitBiases = kernels::kMaxLogitBiases;
inline constexpr int kMaxStopStrings = 64;
inline constexpr int kMaxStopStringBytes = 256;
inline constexpr int kMaxStopTokens = 256;
inline constexpr int kMaxChatMessages = 4096;

// A request that is in order, but for its recipe (RecipeCatalog::Choose) and its length (the
// engine).
struct ValidRequest {
  // Raw text, token ids as they are, or a conversation.
  std::variant<std::string, std::vector<int32_t>, Conversation> input;
  std::vector<int32_t> forced_output;
  SamplingParams sampling;  // defaults filled in; a random seed where none was given
  StoppingOptions stopping;
  std::optional<int32_t> output_logprobs;
  std::optional<int32_t> prompt_logprobs;
  uint32_t tokens_per_delta = 1;
  int32_t priority = 0;
  std::string cache_salt;
};

// INVALID_ARGUMENT for a text of more than `most` bytes.
absl::Status CheckBytes(const std::string& field, const std::string& value, int most);

// INVALID_ARGUMENT for an id over 128 bytes or with bytes that are not printable ASCII.
absl::Status ValidateRequestId(const std::string& id);

// NOT_FOUND for a model that is not the served one. Empty: the served one.
absl::Status ValidateModelName(const std::string& name, const ServingModel& model);

// INVALID_ARGUMENT with field, value and way out; OUT_OF_RANGE for text that cannot fit into the
// context.
absl::StatusOr<ValidRequest> ValidateRequest(const v1::GenerateRequest& request,
                                             const ServingModel& model);

// The prompt's tokens: the tokenizer's own beginning before raw text, the chat template around
// messages. Takes time in proportion to the text; for workers. INVALID_ARGUMENT: the chat template
// refuses the conversation.
absl::StatusOr<std::vector<int32_t>> TokenizeInput(const ValidRequest& request,
                                                   const ServingModel& model,
                                                   std::optional<bool> thinking);

}  // namespace swaa::server

#endif  // SWAA_SERVER_GENERATE_REQUEST_VALIDATION_H_
