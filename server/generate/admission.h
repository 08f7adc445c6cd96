// From a client's message to the engine's request.

#ifndef SWAA_SERVER_GENERATE_ADMISSION_H_
#define SWAA_SERVER_GENERATE_ADMISSION_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "engine/generation.h"
#include "server/experiments/experiment_tag.h"
#include "server/generate/serving_context.h"
#include "server/observation/request_log.h"
#include "swaa/v1/generation.pb.h"

namespace swaa::server {

// What a stream must know of its request.
struct Admission {
  v1::Accepted accepted;  // the event, sent when the engine accepts
  std::string recipe_label = kNoRecipeLabel;
  uint32_t tokens_per_delta = 1;
  bool begins_thinking = false;  // the prompt has opened a thinking section
  Recipe recipe;
  std::optional<ExperimentTag> experiment;
  // Set if the request is to be computed again when it is finished.
  std::shared_ptr<const std::vector<int32_t>> shadow_prompt;
  uint64_t adapter_load = 0;  // which load of its adapter it has; 0: the base model
};

// Validates, chooses the recipe, tokenises. Fills `admission` as far as it gets, for the log, and
// all of `request` but its times. The status is what the client is told. `still_wanted` is asked
// before each part that takes long; what it says ends the work. For workers: takes time in
// proportion to the prompt. `unit_metadata`: x-swaa-experiment-unit, which the request's own field
// overrides.
absl::Status PrepareRequest(const v1::GenerateRequest& proto, const std::string& unit_metadata,
                            const ServingContext& serving,
                            absl::FunctionRef<absl::Status()> still_wanted, Admission* admission,
                            GenerationRequest* request);

}  // namespace swaa::server

#endif  // SWAA_SERVER_GENERATE_ADMISSION_H_
