// Statuses as a gateway understands them. SMG makes HTTP's codes of them and decides by them alone
// whether to ask another worker; it reads no trailer.

#ifndef SWAA_SERVER_VLLM_ENGINE_GATEWAY_STATUS_H_
#define SWAA_SERVER_VLLM_ENGINE_GATEWAY_STATUS_H_

#include <map>

#include <grpcpp/grpcpp.h>

#include "absl/status/status.h"

namespace swaa::server {

// The same with another code, where the gateway would otherwise try again in vain or tell of a
// fault of the server: a prompt that is too long is INVALID_ARGUMENT, what never fits is
// FAILED_PRECONDITION, an id in use is ABORTED. The reason stays.
absl::Status ForGateway(const absl::Status& status);

// The same for what a call to InferenceService ended with; its trailers are added to `call`.
grpc::Status ForGateway(const grpc::Status& status,
                        const std::multimap<grpc::string_ref, grpc::string_ref>& trailers,
                        grpc::ServerContextBase* call);

}  // namespace swaa::server

#endif  // SWAA_SERVER_VLLM_ENGINE_GATEWAY_STATUS_H_
