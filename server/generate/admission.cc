// From a client's message to the engine's request.

#include "server/generate/admission.h"

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "engine/tokenizer/thinking.h"
#include "server/generate/errors.h"
#include "server/generate/request_validation.h"

namespace swaa::server {
namespace {

// Not by StrFormat, here and wherever a request is served: it ends the process where it lacks
// memory.
std::string MakeRequestId() {
  thread_local absl::BitGen generator;
  return absl::StrCat("swaa-", absl::Hex(absl::Uniform<uint64_t>(generator), absl::kZeroPad16));
}

std::optional<bool> ThinkingSwitch(ThinkingMode mode) {
  if (mode == ThinkingMode::kDefault) return std::nullopt;
  return mode == ThinkingMode::kEnabled;
}

// A prompt that is too long by itself is the engine's to refuse.
absl::Status CheckForcedLength(const GenerationRequest& request, int32_t context_tokens) {
  const auto context = static_cast<size_t>(context_tokens);
  const size_t prompt = request.prompt->size();
  if (prompt > context || prompt + request.forced_output.size() <= context) {
    return absl::OkStatus();
  }
  return MakeError(absl::StatusCode::kOutOfRange, "forced_output_too_long",
                   absl::StrCat("forced_output_ids.ids: ", request.forced_output.size(),
                                " tokens after a prompt of ", prompt, " exceed the context of ",
                                context, "; shorten one of them"));
}

// What needs no more than moving.
void TakeOptions(ValidRequest valid, GenerationRequest* request) {
  request->forced_output = std::move(valid.forced_output);
  request->sampling = std::move(valid.sampling);
  request->stopping = std::move(valid.stopping);
  request->output_logprobs = valid.output_logprobs;
  request->prompt_logprobs = valid.prompt_logprobs;
  request->priority = valid.priority;
  request->cache_salt = std::move(valid.cache_salt);
}

// Held until no step reads it any more.
absl::StatusOr<AdapterHandle> AcquireAdapter(const std::string& lora_name,
                                             const ServingContext& serving) {
  if (lora_name.empty()) return AdapterHandle();
  if (serving.adapters != nullptr) {
    return serving.adapters->Acquire(lora_name, "recipe.lora_name");
  }
  return MakeError(absl::StatusCode::kNotFound, "lora_not_found",
                   absl::StrCat("recipe.lora_name: no adapter ", Quoted(lora_name),
                                " is loaded, and this server's device computes none; leave it "
                                "empty for the base model"));
}

// By the request itself, else by the name that it has for the model, else by its experiment, else
// the default. An arm counts from here on,
// whatever becomes of the request: arms whose requests are refused more often must not look better.
absl::StatusOr<ChosenRecipe> ChooseRecipe(const v1::GenerateRequest& proto,
                                          const std::string& unit_metadata,
                                          const ServingContext& serving, Admission* admission) {
  const std::string& unit =
      proto.experiment_unit_id().empty() ? unit_metadata : proto.experiment_unit_id();
  if (proto.recipe_choice_case() != v1::GenerateRequest::RECIPE_CHOICE_NOT_SET) {
    if (!unit.empty()) serving.experiments->CountExplicitRecipe();
    return serving.recipes.Get()->Choose(proto);
  }
  if (const ServedName* named = serving.model.more_names.Find(proto.model()); named != nullptr) {
    if (!unit.empty()) serving.experiments->CountExplicitRecipe();
    const auto recipes = serving.recipes.Get();
    const NamedRecipe* recipe = recipes->Find(named->recipe);
    SWAA_CHECK(recipe != nullptr) << named->recipe;  // a catalogue without it is never taken
    return recipes->Choose(proto, recipe);
  }
  v1::Accepted& accepted = admission->accepted;
  Experiments::Choice choice = serving.experiments->Choose(unit, accepted.request_id());
  if (choice.tag.has_value()) {
    accepted.set_experiment_id(choice.tag->experiment_id());
    accepted.set_experiment_arm(choice.tag->arm_name());
    accepted.set_experiment_revision(choice.tag->experiment->revision);
  }
  admission->experiment = std::move(choice.tag);
  return serving.recipes.Get()->Choose(proto,
                                       choice.recipe.has_value() ? &*choice.recipe : nullptr);
}

}  // namespace

absl::Status PrepareRequest(const v1::GenerateRequest& proto, const std::string& unit_metadata,
                            const ServingContext& serving,
                            absl::FunctionRef<absl::Status()> still_wanted, Admission* admission,
                            GenerationRequest* request) {
  SWAA_RETURN_IF_ERROR(ValidateRequestId(proto.request_id()));
  request->id = proto.request_id().empty() ? MakeRequestId() : proto.request_id();
  v1::Accepted& accepted = admission->accepted;
  accepted.set_request_id(request->id);
  accepted.set_model(serving.model.more_names.Find(proto.model()) != nullptr
                         ? proto.model()
                         : serving.model.served_name);
  SWAA_RETURN_IF_ERROR(still_wanted());
  SWAA_ASSIGN_OR_RETURN(ChosenRecipe recipe,
                        ChooseRecipe(proto, unit_metadata, serving, admission));
  admission->recipe_label = request->recipe_label = recipe.label;
  accepted.set_recipe_name(recipe.name);
  *accepted.mutable_resolved_recipe() = RecipeToProto(recipe);
  SWAA_ASSIGN_OR_RETURN(ValidRequest valid, ValidateRequest(proto, serving.model));
  admission->tokens_per_delta = valid.tokens_per_delta;
  SWAA_RETURN_IF_ERROR(still_wanted());
  SWAA_ASSIGN_OR_RETURN(request->adapter, AcquireAdapter(recipe.lora_name, serving));
  if (request->adapter != nullptr) admission->adapter_load = request->adapter->load;
  SWAA_ASSIGN_OR_RETURN(std::vector<int32_t> prompt,
                        TokenizeInput(valid, serving.model, ThinkingSwitch(recipe.thinking_mode)));
  request->prompt = std::make_shared<const std::vector<int32_t>>(std::move(prompt));
  accepted.set_prompt_tokens(static_cast<uint32_t>(request->prompt->size()));
  if (const auto& marks = serving.model.thinking_marks; marks.has_value()) {
    admission->begins_thinking = EndsInThinking(*marks, *serving.model.tokenizer, *request->prompt);
  }
  admission->recipe = recipe.recipe;
  request->recipe = std::move(recipe.recipe);
  TakeOptions(std::move(valid), request);
  const ExperimentTag* tag = admission->experiment.has_value() ? &*admission->experiment : nullptr;
  if (serving.shadows->Wants(request->id, tag)) admission->shadow_prompt = request->prompt;
  return CheckForcedLength(*request, serving.engine_options.max_context_tokens);
}

}  // namespace swaa::server
