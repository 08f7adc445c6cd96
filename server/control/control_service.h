// The control plane.

#ifndef SWAA_SERVER_CONTROL_CONTROL_SERVICE_H_
#define SWAA_SERVER_CONTROL_CONTROL_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include "server/generate/serving_context.h"
#include "swaa/v1/control_service.grpc.pb.h"

namespace swaa::server {

// Every method answers from memory, on gRPC's callback threads. Thread-safe.
class ControlService final : public v1::ControlService::CallbackService {
 public:
  // `serving` outlives the service.
  explicit ControlService(ServingContext* serving) : serving_(serving) {}

  grpc::ServerUnaryReactor* GetServerInfo(grpc::CallbackServerContext* call,
                                          const v1::GetServerInfoRequest* request,
                                          v1::GetServerInfoResponse* response) override;
  grpc::ServerUnaryReactor* GetModelInfo(grpc::CallbackServerContext* call,
                                         const v1::GetModelInfoRequest* request,
                                         v1::GetModelInfoResponse* response) override;
  grpc::ServerUnaryReactor* GetLoad(grpc::CallbackServerContext* call,
                                    const v1::GetLoadRequest* request,
                                    v1::GetLoadResponse* response) override;
  // NOT_FOUND for an id that is not live; INVALID_ARGUMENT without a target.
  grpc::ServerUnaryReactor* Abort(grpc::CallbackServerContext* call,
                                  const v1::AbortRequest* request,
                                  v1::AbortResponse* response) override;
  // UNIMPLEMENTED: this build serves the base model alone.
  grpc::ServerUnaryReactor* LoadLora(grpc::CallbackServerContext* call,
                                     const v1::LoadLoraRequest* request,
                                     v1::LoadLoraResponse* response) override;
  // NOT_FOUND, as none is loaded.
  grpc::ServerUnaryReactor* UnloadLora(grpc::CallbackServerContext* call,
                                       const v1::UnloadLoraRequest* request,
                                       v1::UnloadLoraResponse* response) override;
  grpc::ServerUnaryReactor* ListLoras(grpc::CallbackServerContext* call,
                                      const v1::ListLorasRequest* request,
                                      v1::ListLorasResponse* response) override;
  grpc::ServerUnaryReactor* ListRecipes(grpc::CallbackServerContext* call,
                                        const v1::ListRecipesRequest* request,
                                        v1::ListRecipesResponse* response) override;

 private:
  ServingContext* const serving_;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_CONTROL_CONTROL_SERVICE_H_
