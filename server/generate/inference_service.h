// The data plane.

#ifndef SWAA_SERVER_GENERATE_INFERENCE_SERVICE_H_
#define SWAA_SERVER_GENERATE_INFERENCE_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include "server/generate/generate_stream.h"
#include "server/generate/serving_context.h"
#include "swaa/v1/inference_service.grpc.pb.h"

namespace swaa::server {

// Takes and gives raw bytes: with messages of its own, gRPC would answer a request that does not
// parse with UNIMPLEMENTED and no word. Thread-safe.
class InferenceService final
    : public v1::InferenceService::WithRawCallbackMethod_Generate<v1::InferenceService::Service> {
 public:
  // `serving` outlives the service and its streams.
  explicit InferenceService(ServingContext* serving) : serving_(serving) {}

  grpc::ServerWriteReactor<grpc::ByteBuffer>* Generate(grpc::CallbackServerContext* call,
                                                       const grpc::ByteBuffer* request) override {
    return GenerateStream::Start(serving_, call, *request);
  }

 private:
  ServingContext* const serving_;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_GENERATE_INFERENCE_SERVICE_H_
