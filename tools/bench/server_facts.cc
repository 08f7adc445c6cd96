// Bench: what a run must know of the server before it starts.

#include "tools/bench/server_facts.h"

#include <algorithm>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "swaa/v1/control_service.grpc.pb.h"
#include "swaa/v1/inference_service.grpc.pb.h"
#include "tools/bench/prompts.h"

namespace swaa::tools::bench {
namespace {

constexpr absl::Duration kAskDeadline = absl::Seconds(5);
constexpr absl::Duration kProbeDeadline = absl::Seconds(60);
constexpr uint32_t kProbeWords = 150;

void SetDeadline(absl::Duration deadline, grpc::ClientContext* context) {
  context->set_deadline(absl::ToChronoTime(absl::Now() + deadline));
}

absl::Status ToStatus(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

// A server that refuses is one.
absl::Status NoServer(const std::string& address, const grpc::Status& status) {
  if (status.error_code() != grpc::StatusCode::UNAVAILABLE &&
      status.error_code() != grpc::StatusCode::DEADLINE_EXCEEDED) {
    return ToStatus(status);
  }
  return absl::UnavailableError(
      absl::StrCat("--address: no server answers at ", address, " (", status.error_message(),
                   "); start one with `swaa serve --model FILE --listen-address ", address,
                   "`, or name another"));
}

absl::Status CheckRecipes(const ServerFacts& facts, const BenchOptions& options) {
  std::vector<std::string> known;
  for (const v1::NamedRecipe& named : facts.recipes.named_recipes()) known.push_back(named.name());
  for (const RecipeArm& arm : options.arms) {
    if (arm.in_full || std::find(known.begin(), known.end(), arm.label) != known.end()) continue;
    return absl::NotFoundError(absl::StrCat("--recipes: the server has no recipe \"", arm.label,
                                            "\"; it has ", absl::StrJoin(known, ", "),
                                            ", and takes any in full as {JSON}"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ServerFacts> AskServer(const std::shared_ptr<grpc::Channel>& channel,
                                      const std::string& address) {
  const auto stub = v1::ControlService::NewStub(channel);
  ServerFacts facts;
  grpc::ClientContext model_call;
  SetDeadline(kAskDeadline, &model_call);
  if (const auto status = stub->GetModelInfo(&model_call, {}, &facts.model); !status.ok()) {
    return NoServer(address, status);
  }
  grpc::ClientContext recipes_call;
  SetDeadline(kAskDeadline, &recipes_call);
  if (const auto status = stub->ListRecipes(&recipes_call, {}, &facts.recipes); !status.ok()) {
    return NoServer(address, status);
  }
  return facts;
}

absl::Status Settle(const ServerFacts& facts, BenchOptions* options) {
  if (options->arms.empty()) {
    options->arms = {RecipeArm{.label = facts.recipes.default_recipe_name()}};
  }
  SWAA_RETURN_IF_ERROR(CheckRecipes(facts, *options));
  const uint64_t prompt =
      uint64_t{options->shared_prefix_tokens} + uint64_t{options->prompt_tokens.max()};
  const uint64_t longest = prompt + options->output_tokens.max();
  const uint32_t context = facts.model.max_context_tokens();
  if (longest <= context) return absl::OkStatus();
  return absl::OutOfRangeError(absl::StrCat(
      "--prompt-tokens: a prompt of up to ", prompt, " tokens",
      options->shared_prefix_tokens > 0 ? ", its shared prefix included," : "", " and up to ",
      options->output_tokens.max(), " of output do not fit into the model's context of ", context,
      " tokens; ask for fewer by --prompt-tokens, --shared-prefix-tokens or --output-tokens"));
}

absl::StatusOr<double> MeasureTokensPerWord(const std::shared_ptr<grpc::Channel>& channel) {
  const auto stub = v1::InferenceService::NewStub(channel);
  std::mt19937_64 generator(0);
  v1::GenerateRequest request;
  request.set_prompt(Prose(kProbeWords, generator));
  request.mutable_stopping_options()->set_max_tokens(1);
  grpc::ClientContext call;
  SetDeadline(kProbeDeadline, &call);
  const auto reader = stub->Generate(&call, request);
  v1::GenerateResponse response;
  uint32_t tokens = 0;
  while (reader->Read(&response)) {
    if (response.has_accepted()) tokens = response.accepted().prompt_tokens();
  }
  if (const grpc::Status status = reader->Finish(); !status.ok()) return ToStatus(status);
  if (tokens == 0) return absl::InternalError("the server counted no token in a prompt of prose");
  return static_cast<double>(tokens) / kProbeWords;
}

}  // namespace swaa::tools::bench
