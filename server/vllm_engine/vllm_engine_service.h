// The service by which the gateway SMG reaches this server.

#ifndef SWAA_SERVER_VLLM_ENGINE_VLLM_ENGINE_SERVICE_H_
#define SWAA_SERVER_VLLM_ENGINE_VLLM_ENGINE_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include "absl/status/status.h"
#include "server/vllm_engine/gateway_context.h"
#include "vllm/grpc/engine/vllm_engine.grpc.pb.h"

namespace swaa::server {

namespace vllm_pb = ::vllm::grpc::engine;

// Every method takes and gives raw bytes (control/raw_call.h).
template <typename Service>
using AllRawVllmEngine = vllm_pb::VllmEngine::WithRawCallbackMethod_Generate<
    vllm_pb::VllmEngine::WithRawCallbackMethod_HealthCheck<
        vllm_pb::VllmEngine::WithRawCallbackMethod_Abort<
            vllm_pb::VllmEngine::WithRawCallbackMethod_GetModelInfo<
                vllm_pb::VllmEngine::WithRawCallbackMethod_GetServerInfo<
                    vllm_pb::VllmEngine::WithRawCallbackMethod_GetLoads<
                        vllm_pb::VllmEngine::WithRawCallbackMethod_GetTokenizer<
                            vllm_pb::VllmEngine::WithRawCallbackMethod_SubscribeKvEvents<
                                Service>>>>>>>>;

// What the gateway sends is translated and goes the way of everybody's requests. Thread-safe.
class VllmEngineService final : public AllRawVllmEngine<vllm_pb::VllmEngine::Service> {
 public:
  // `gateway` outlives the service and its calls.
  explicit VllmEngineService(GatewayContext* gateway) : gateway_(gateway) {}

  grpc::ServerWriteReactor<grpc::ByteBuffer>* Generate(grpc::CallbackServerContext* call,
                                                       const grpc::ByteBuffer* request) override;
  grpc::ServerUnaryReactor* HealthCheck(grpc::CallbackServerContext* call,
                                        const grpc::ByteBuffer* request,
                                        grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Abort(grpc::CallbackServerContext* call,
                                  const grpc::ByteBuffer* request,
                                  grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* GetModelInfo(grpc::CallbackServerContext* call,
                                         const grpc::ByteBuffer* request,
                                         grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* GetServerInfo(grpc::CallbackServerContext* call,
                                          const grpc::ByteBuffer* request,
                                          grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* GetLoads(grpc::CallbackServerContext* call,
                                     const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* GetTokenizer(
      grpc::CallbackServerContext* call, const grpc::ByteBuffer* request) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* SubscribeKvEvents(
      grpc::CallbackServerContext* call, const grpc::ByteBuffer* request) override;

 private:
  void FillModelInfo(const std::string& authority, vllm_pb::GetModelInfoResponse* response) const;
  void FillServerInfo(vllm_pb::GetServerInfoResponse* response) const;
  void FillLoads(vllm_pb::GetLoadsResponse* response) const;

  GatewayContext* const gateway_;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_VLLM_ENGINE_VLLM_ENGINE_SERVICE_H_
