// The control plane.

#include "server/control/control_service.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/device_state.h"
#include "kernels/types.h"
#include "server/control/audit.h"
#include "server/control/raw_call.h"
#include "server/control/worker_call.h"
#include "server/generate/abort_request.h"
#include "server/generate/errors.h"
#include "server/generate/request_validation.h"
#include "server/observation/memory_guard.h"

namespace swaa::server {
namespace {

// Leaves the message out where the driver tells nothing.
void FillFacts(const kernels::DeviceFacts& facts, v1::GetServerInfoResponse* response) {
  const auto out = [response] { return response->mutable_device_facts(); };
  if (facts.name) out()->set_name(*facts.name);
  if (facts.count) out()->set_device_count(static_cast<uint32_t>(*facts.count));
  if (facts.clock_hertz) out()->set_clock_hertz(*facts.clock_hertz);
  if (facts.power_watts) out()->set_power_watts(*facts.power_watts);
  if (facts.power_limit_watts) out()->set_power_limit_watts(*facts.power_limit_watts);
  if (facts.temperature_celsius) out()->set_temperature_celsius(*facts.temperature_celsius);
}

v1::LoraAdapter ToProto(const AdapterInfo& info) {
  v1::LoraAdapter proto;
  proto.set_lora_name(info.name);
  proto.set_source_path(info.path);
  proto.set_rank(info.rank);
  return proto;
}

absl::Status NoAdapter(const std::string& name) {
  return MakeError(absl::StatusCode::kNotFound, "lora_not_found",
                   absl::StrCat("lora_name: no adapter ", Quoted(name), " is loaded"));
}

absl::Status AbortOne(ServingContext* serving, const Caller& caller, const std::string& id) {
  if (AbortRequest(serving, caller, id)) return absl::OkStatus();
  return MakeError(absl::StatusCode::kNotFound, "request_not_found",
                   absl::StrCat("request_id: no live request ", Quoted(id),
                                "; it has ended, or never was here"));
}

}  // namespace

absl::Status ControlService::FillServerInfo(const v1::GetServerInfoRequest&,
                                            v1::GetServerInfoResponse* response) {
  const EngineLoad load = serving_->engine->Load();
  response->set_version(serving_->version);
  response->set_instance_id(serving_->instance_id);
  response->set_backend(serving_->device.backend);
  response->set_device(serving_->device.name);
  response->set_kv_page_tokens(kernels::kPageTokens);
  response->set_kv_page_bytes(serving_->device.page_bytes);
  response->set_kv_total_pages(load.total_pages);
  response->set_max_running_requests(serving_->engine_options.max_running_requests);
  response->set_max_queued_requests(serving_->engine_options.max_queued_requests);
  response->set_max_batch_tokens(serving_->engine_options.max_batch_tokens);
  response->set_max_loras(serving_->adapters == nullptr
                              ? 0
                              : static_cast<uint32_t>(serving_->adapters->options().max_resident));
  FillFacts(serving_->device_facts(0), response);
  response->set_tensor_parallel_size(static_cast<uint32_t>(serving_->device.ranks));
  return absl::OkStatus();
}

absl::Status ControlService::FillModelInfo(const v1::GetModelInfoRequest& request,
                                           v1::GetModelInfoResponse* response) {
  const ServingModel& model = serving_->model;
  SWAA_RETURN_IF_ERROR(CheckBytes("model", request.model(), kMaxNameBytes));
  SWAA_RETURN_IF_ERROR(ValidateModelName(request.model(), model));
  response->set_served_model_name(request.model().empty() ? model.served_name : request.model());
  response->set_architecture(model.config.architecture);
  response->set_max_context_tokens(serving_->engine_options.max_context_tokens);
  response->set_num_layers(model.config.num_layers);
  response->set_num_attention_heads(model.config.heads);
  response->set_num_kv_heads(model.config.kv_heads);
  response->set_head_dim(model.config.head_dim);
  response->set_vocab_size(model.tokenizer->vocab_size());
  for (int32_t id : model.tokenizer->eos_ids()) {
    response->add_eos_token_ids(static_cast<uint32_t>(id));
  }
  response->set_supports_chat(model.chat_format != nullptr);
  response->set_supports_thinking(model.supports_thinking());
  return absl::OkStatus();
}

absl::Status ControlService::FillLoad(const v1::GetLoadRequest&, v1::GetLoadResponse* response) {
  const EngineLoad load = serving_->engine->Load();
  const AdmissionLoad admissions = serving_->workers->admission_load();
  response->set_running_requests(load.running);
  response->set_queued_requests(load.queued + admissions.waiting + admissions.running);
  response->set_unread_requests(admissions.waiting + admissions.running);
  response->set_unread_bytes(admissions.bytes);
  response->set_used_kv_pages(load.used_pages);
  response->set_total_kv_pages(load.total_pages);
  response->set_evictable_kv_pages(load.evictable_pages);
  for (const auto& [label, recipe] : load.recipes) {
    v1::RecipeLoad* out = response->add_recipes();
    out->set_recipe_name(label);
    out->set_running_requests(recipe.running);
    out->set_queued_requests(recipe.queued);
    out->set_kv_cache_bytes(recipe.kv_bytes);
    out->set_full_attention_kv_cache_bytes(recipe.full_attention_kv_bytes);
  }
  return absl::OkStatus();
}

absl::Status ControlService::AbortTarget(const Caller& caller, const v1::AbortRequest& request,
                                         v1::AbortResponse* response) {
  if (request.target_case() == v1::AbortRequest::kRequestId) {
    SWAA_RETURN_IF_ERROR(ValidateRequestId(request.request_id()));
    SWAA_RETURN_IF_ERROR(AbortOne(serving_, caller, request.request_id()));
    response->set_aborted_requests(1);
    return absl::OkStatus();
  }
  if (request.target_case() == v1::AbortRequest::kAllRequests && request.all_requests()) {
    if (!caller.HasAny(kAdminister)) {
      return MakeError(absl::StatusCode::kPermissionDenied, "permission_denied",
                       absl::StrCat("all_requests: ", caller.name,
                                    " has not the role administer, and may abort its own requests "
                                    "alone; name them by request_id"));
    }
    // Those first that would otherwise reach the engine in between.
    const int32_t unread = serving_->pending.AbortAll();
    response->set_aborted_requests(unread + serving_->engine->AbortAll());
    return absl::OkStatus();
  }
  return MakeError(absl::StatusCode::kInvalidArgument, "no_target",
                   "target: not set, or all_requests false; name a request_id or set "
                   "all_requests to true");
}

absl::Status ControlService::LoadAdapter(const v1::LoadLoraRequest& request,
                                         v1::LoadLoraResponse* response) {
  SWAA_RETURN_IF_ERROR(CheckBytes("lora_name", request.lora_name(), kMaxNameBytes));
  if (serving_->adapters == nullptr) {
    return MakeError(absl::StatusCode::kUnimplemented, "lora_not_supported",
                     absl::StrCat("lora_name: ", Quoted(request.lora_name()), " cannot be loaded: ",
                                  serving_->no_adapters_reason, " (max_loras is 0)"));
  }
  SWAA_ASSIGN_OR_RETURN(const AdapterInfo info, serving_->adapters->LoadBelowRoots(
                                                    request.lora_name(), request.source_path()));
  *response->mutable_lora_adapter() = ToProto(info);
  return absl::OkStatus();
}

absl::Status ControlService::FillLoras(const v1::ListLorasRequest&,
                                       v1::ListLorasResponse* response) {
  if (serving_->adapters == nullptr) return absl::OkStatus();
  for (const AdapterInfo& info : serving_->adapters->List()) {
    *response->add_lora_adapters() = ToProto(info);
  }
  return absl::OkStatus();
}

absl::Status ControlService::FillRecipes(const v1::ListRecipesRequest&,
                                         v1::ListRecipesResponse* response) {
  const auto recipes = serving_->recipes.Get();
  for (const NamedRecipe& named : recipes->recipes()) {
    v1::NamedRecipe* out = response->add_named_recipes();
    out->set_name(named.name);
    *out->mutable_recipe() = RecipeToProto(named);
    out->set_description(named.description);
  }
  response->set_default_recipe_name(recipes->default_recipe().name);
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* ControlService::GetServerInfo(grpc::CallbackServerContext* call,
                                                        const grpc::ByteBuffer* request,
                                                        grpc::ByteBuffer* response) {
  return AnswerCall<v1::GetServerInfoRequest, v1::GetServerInfoResponse>(
      call, *request, response,
      [this](const auto& in, auto* out) { return FillServerInfo(in, out); });
}

grpc::ServerUnaryReactor* ControlService::GetModelInfo(grpc::CallbackServerContext* call,
                                                       const grpc::ByteBuffer* request,
                                                       grpc::ByteBuffer* response) {
  return AnswerCall<v1::GetModelInfoRequest, v1::GetModelInfoResponse>(
      call, *request, response,
      [this](const auto& in, auto* out) { return FillModelInfo(in, out); });
}

grpc::ServerUnaryReactor* ControlService::GetLoad(grpc::CallbackServerContext* call,
                                                  const grpc::ByteBuffer* request,
                                                  grpc::ByteBuffer* response) {
  return AnswerCall<v1::GetLoadRequest, v1::GetLoadResponse>(
      call, *request, response, [this](const auto& in, auto* out) { return FillLoad(in, out); });
}

grpc::ServerUnaryReactor* ControlService::Abort(grpc::CallbackServerContext* call,
                                                const grpc::ByteBuffer* request,
                                                grpc::ByteBuffer* response) {
  return AnswerCall<v1::AbortRequest, v1::AbortResponse>(
      call, *request, response, [&](const auto& in, auto* out) {
        return Audited(*serving_, *call, "Abort",
                       in.all_requests() ? "all requests" : in.request_id(),
                       [&](const Caller& caller) { return AbortTarget(caller, in, out); });
      });
}

grpc::ServerUnaryReactor* ControlService::LoadLora(grpc::CallbackServerContext* call,
                                                   const grpc::ByteBuffer* request,
                                                   grpc::ByteBuffer* response) {
  return AnswerOnWorker<v1::LoadLoraRequest, v1::LoadLoraResponse>(
      serving_, call, *request, response, [=, this](const auto& in, auto* out) {
        return Audited(*serving_, *call, "LoadLora", in.lora_name(),
                       [&](const Caller&) { return LoadAdapter(in, out); });
      });
}

// Waits in no thread: whoever lets the adapter go ends the call.
grpc::ServerUnaryReactor* ControlService::UnloadLora(grpc::CallbackServerContext* call,
                                                     const grpc::ByteBuffer* request,
                                                     grpc::ByteBuffer* response) {
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  const auto end = [=, this](const std::string& name, const absl::Status& status) {
    absl::Status ended = status;
    GuardMemory("a line of the audit", [&] {
      ended = Audited(*serving_, *call, "UnloadLora", name,
                      [&status](const Caller&) { return status; });
    });
    EndCall(call, reactor, ended, v1::UnloadLoraResponse(), response);
  };
  std::string name;
  const absl::Status status = WithinMemory([&]() -> absl::Status {
    SWAA_ASSIGN_OR_RETURN(const auto asked, ParseControlRequest<v1::UnloadLoraRequest>(*request));
    name = asked.lora_name();
    SWAA_RETURN_IF_ERROR(CheckBytes("lora_name", name, kMaxNameBytes));
    if (serving_->adapters == nullptr) return NoAdapter(name);
    return serving_->adapters->Unload(name, [=] { end(name, absl::OkStatus()); });
  });
  if (!status.ok()) end(name, status);
  return reactor;
}

grpc::ServerUnaryReactor* ControlService::ListLoras(grpc::CallbackServerContext* call,
                                                    const grpc::ByteBuffer* request,
                                                    grpc::ByteBuffer* response) {
  return AnswerCall<v1::ListLorasRequest, v1::ListLorasResponse>(
      call, *request, response, [this](const auto& in, auto* out) { return FillLoras(in, out); });
}

grpc::ServerUnaryReactor* ControlService::ListRecipes(grpc::CallbackServerContext* call,
                                                      const grpc::ByteBuffer* request,
                                                      grpc::ByteBuffer* response) {
  return AnswerCall<v1::ListRecipesRequest, v1::ListRecipesResponse>(
      call, *request, response, [this](const auto& in, auto* out) { return FillRecipes(in, out); });
}

}  // namespace swaa::server
