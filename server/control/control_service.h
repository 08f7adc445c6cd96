// The control plane.

#ifndef SWAA_SERVER_CONTROL_CONTROL_SERVICE_H_
#define SWAA_SERVER_CONTROL_CONTROL_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include "absl/status/status.h"
#include "server/generate/serving_context.h"
#include "swaa/v1/control_service.grpc.pb.h"

namespace swaa::server {

// Every method takes and gives raw bytes (raw_call.h).
template <typename Service>
using AllRaw = v1::ControlService::WithRawCallbackMethod_GetServerInfo<
    v1::ControlService::WithRawCallbackMethod_GetModelInfo<
        v1::ControlService::WithRawCallbackMethod_GetLoad<
            v1::ControlService::WithRawCallbackMethod_Abort<
                v1::ControlService::WithRawCallbackMethod_LoadLora<
                    v1::ControlService::WithRawCallbackMethod_UnloadLora<
                        v1::ControlService::WithRawCallbackMethod_ListLoras<
                            v1::ControlService::WithRawCallbackMethod_ListRecipes<Service>>>>>>>>;

// Every method answers from memory, on gRPC's callback threads; but LoadLora, which reads files, on
// a worker, and UnloadLora when the last request has let the adapter go. INVALID_ARGUMENT with the
// field, the value and the limit for what is malformed or too long. Thread-safe.
class ControlService final : public AllRaw<v1::ControlService::Service> {
 public:
  // `serving` outlives the service.
  explicit ControlService(ServingContext* serving) : serving_(serving) {}

  grpc::ServerUnaryReactor* GetServerInfo(grpc::CallbackServerContext* call,
                                          const grpc::ByteBuffer* request,
                                          grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* GetModelInfo(grpc::CallbackServerContext* call,
                                         const grpc::ByteBuffer* request,
                                         grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* GetLoad(grpc::CallbackServerContext* call,
                                    const grpc::ByteBuffer* request,
                                    grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Abort(grpc::CallbackServerContext* call,
                                  const grpc::ByteBuffer* request,
                                  grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* LoadLora(grpc::CallbackServerContext* call,
                                     const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* UnloadLora(grpc::CallbackServerContext* call,
                                       const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* ListLoras(grpc::CallbackServerContext* call,
                                      const grpc::ByteBuffer* request,
                                      grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* ListRecipes(grpc::CallbackServerContext* call,
                                        const grpc::ByteBuffer* request,
                                        grpc::ByteBuffer* response) override;

 private:
  absl::Status FillServerInfo(const v1::GetServerInfoRequest& request,
                              v1::GetServerInfoResponse* response);
  absl::Status FillModelInfo(const v1::GetModelInfoRequest& request,
                             v1::GetModelInfoResponse* response);
  absl::Status FillLoad(const v1::GetLoadRequest& request, v1::GetLoadResponse* response);
  // NOT_FOUND for an id that is not live, or another's and the caller does not administer;
  // PERMISSION_DENIED for all requests if it does not; INVALID_ARGUMENT without a target.
  absl::Status AbortTarget(const Caller& caller, const v1::AbortRequest& request,
                           v1::AbortResponse* response);
  // UNIMPLEMENTED where the device computes no adapters; else as AdapterRegistry.
  absl::Status LoadAdapter(const v1::LoadLoraRequest& request, v1::LoadLoraResponse* response);
  absl::Status FillLoras(const v1::ListLorasRequest& request, v1::ListLorasResponse* response);
  absl::Status FillRecipes(const v1::ListRecipesRequest& request,
                           v1::ListRecipesResponse* response);

  ServingContext* const serving_;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_CONTROL_CONTROL_SERVICE_H_
