// The service by which the gateway SMG reaches this server.

#include "server/vllm_engine/vllm_engine_service.h"

#include <algorithm>
#include <limits>
#include <new>

#include <nlohmann/json.hpp>

#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "kernels/types.h"
#include "server/control/raw_call.h"
#include "server/generate/abort_request.h"
#include "server/generate/inference_service.h"
#include "server/vllm_engine/call_authority.h"
#include "server/vllm_engine/gateway_call.h"
#include "server/vllm_engine/kv_event_stream.h"
#include "server/vllm_engine/tokenizer_stream.h"

namespace swaa::server {
namespace {

int32_t Clamped(int64_t value) {
  return static_cast<int32_t>(std::clamp<int64_t>(value, 0, std::numeric_limits<int32_t>::max()));
}

std::string DefaultSampling(const GenerationDefaults& defaults) {
  nlohmann::json json = nlohmann::json::object();
  if (defaults.temperature) json["temperature"] = *defaults.temperature;
  if (defaults.top_p) json["top_p"] = *defaults.top_p;
  if (defaults.top_k) json["top_k"] = *defaults.top_k;
  if (defaults.min_p) json["min_p"] = *defaults.min_p;
  if (defaults.repetition_penalty) json["repetition_penalty"] = *defaults.repetition_penalty;
  return json.dump();
}

}  // namespace

grpc::ServerWriteReactor<grpc::ByteBuffer>* VllmEngineService::Generate(
    grpc::CallbackServerContext* call, const grpc::ByteBuffer* request) {
  try {
    return GatewayCall::Start(gateway_, call, *request);
  } catch (const std::bad_alloc&) {
    AddErrorTrailers(gateway_->serving->out_of_memory, call);
    return new RefusedStream(ToGrpcStatus(gateway_->serving->out_of_memory));
  }
}

grpc::ServerUnaryReactor* VllmEngineService::HealthCheck(grpc::CallbackServerContext* call,
                                                         const grpc::ByteBuffer* request,
                                                         grpc::ByteBuffer* response) {
  return AnswerCall<vllm_pb::HealthCheckRequest, vllm_pb::HealthCheckResponse>(
      call, *request, response,
      [&](const vllm_pb::HealthCheckRequest&, vllm_pb::HealthCheckResponse* out) {
        out->set_healthy(gateway_->is_ready());
        out->set_message(out->healthy() ? "ready" : "the server is shutting down, or not reached");
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* VllmEngineService::Abort(grpc::CallbackServerContext* call,
                                                   const grpc::ByteBuffer* request,
                                                   grpc::ByteBuffer* response) {
  return AnswerCall<vllm_pb::AbortRequest, vllm_pb::AbortResponse>(
      call, *request, response, [&](const vllm_pb::AbortRequest& in, vllm_pb::AbortResponse*) {
        ServingContext* serving = gateway_->serving;
        SWAA_ASSIGN_OR_RETURN(const std::shared_ptr<const Caller> caller,
                              CallerOf(serving->access, *call));
        for (const std::string& gateway_id : in.request_ids()) {
          for (const std::string& id : gateway_->calls.RequestIds(gateway_id)) {
            AbortRequest(serving, *caller, id);
          }
        }
        return absl::OkStatus();
      });
}

void VllmEngineService::FillModelInfo(const std::string& authority,
                                      vllm_pb::GetModelInfoResponse* response) const {
  const ServingContext& serving = *gateway_->serving;
  const ServingModel& model = serving.model;
  const int32_t context = serving.engine_options.max_context_tokens;
  const ServedName* named = model.more_names.OfAuthority(authority);
  const std::string& name = named == nullptr ? model.served_name : named->name;
  response->set_model_path(name);
  response->set_is_generation(true);
  response->set_max_context_length(static_cast<uint32_t>(context));
  response->set_vocab_size(static_cast<uint32_t>(model.tokenizer->vocab_size()));
  response->set_served_model_name(name);
  response->set_model_type(model.config.architecture);
  for (const int32_t id : model.tokenizer->eos_ids()) response->add_eos_token_ids(id);
  response->set_max_req_input_len(context);
  response->set_default_sampling_params_json(DefaultSampling(model.defaults));
}

grpc::ServerUnaryReactor* VllmEngineService::GetModelInfo(grpc::CallbackServerContext* call,
                                                          const grpc::ByteBuffer* request,
                                                          grpc::ByteBuffer* response) {
  return AnswerCall<vllm_pb::GetModelInfoRequest, vllm_pb::GetModelInfoResponse>(
      call, *request, response,
      [&](const vllm_pb::GetModelInfoRequest&, vllm_pb::GetModelInfoResponse* out) {
        FillModelInfo(AuthorityOf(*call), out);
        return absl::OkStatus();
      });
}

void VllmEngineService::FillServerInfo(vllm_pb::GetServerInfoResponse* response) const {
  response->set_active_requests(static_cast<uint32_t>(gateway_->calls.size()));
  response->set_uptime_seconds(absl::ToDoubleSeconds(SteadyNow() - gateway_->start));
  // Of the kinds of workers that the gateway knows, the one that it takes this server for.
  response->set_server_type("vllm-grpc");
  response->set_data_parallel_size(1);
  response->set_block_size(kernels::kPageTokens);
  response->set_max_num_seqs(gateway_->serving->engine_options.max_running_requests);
}

grpc::ServerUnaryReactor* VllmEngineService::GetServerInfo(grpc::CallbackServerContext* call,
                                                           const grpc::ByteBuffer* request,
                                                           grpc::ByteBuffer* response) {
  return AnswerCall<vllm_pb::GetServerInfoRequest, vllm_pb::GetServerInfoResponse>(
      call, *request, response,
      [&](const vllm_pb::GetServerInfoRequest&, vllm_pb::GetServerInfoResponse* out) {
        FillServerInfo(out);
        return absl::OkStatus();
      });
}

void VllmEngineService::FillLoads(vllm_pb::GetLoadsResponse* response) const {
  const ServingContext& serving = *gateway_->serving;
  const EngineLoad load = serving.engine->Load();
  const AdmissionLoad unread = serving.workers->admission_load();
  response->set_timestamp(absl::FormatTime(absl::RFC3339_sec, absl::Now(), absl::UTCTimeZone()));
  response->set_version(serving.version);
  response->set_dp_rank_count(1);
  vllm_pb::SchedulerLoad* out = response->add_loads();
  out->set_num_running_reqs(load.running);
  out->set_num_waiting_reqs(load.queued + unread.waiting + unread.running);
  out->set_num_total_reqs(out->num_running_reqs() + out->num_waiting_reqs());
  // A page has these tokens of one layer.
  const auto tokens = [&serving](int64_t pages) {
    return Clamped(pages * kernels::kPageTokens / serving.model.config.num_layers);
  };
  out->set_num_used_tokens(tokens(load.used_pages));
  out->set_max_total_num_tokens(tokens(load.total_pages));
  out->set_token_usage(static_cast<double>(load.used_pages) /
                       static_cast<double>(std::max<int64_t>(load.total_pages, 1)));
  out->set_max_running_requests(serving.engine_options.max_running_requests);
}

grpc::ServerUnaryReactor* VllmEngineService::GetLoads(grpc::CallbackServerContext* call,
                                                      const grpc::ByteBuffer* request,
                                                      grpc::ByteBuffer* response) {
  return AnswerCall<vllm_pb::GetLoadsRequest, vllm_pb::GetLoadsResponse>(
      call, *request, response,
      [&](const vllm_pb::GetLoadsRequest&, vllm_pb::GetLoadsResponse* out) {
        FillLoads(out);
        return absl::OkStatus();
      });
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* VllmEngineService::GetTokenizer(
    grpc::CallbackServerContext* call, const grpc::ByteBuffer*) {
  return new TokenizerStream(&gateway_->tokenizer, gateway_->serving->control_workers, call);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* VllmEngineService::SubscribeKvEvents(
    grpc::CallbackServerContext* call, const grpc::ByteBuffer* request) {
  return KvEventStream::Start(gateway_, call, *request);
}

}  // namespace swaa::server
