// The data plane.

#ifndef SWAA_SERVER_GENERATE_INFERENCE_SERVICE_H_
#define SWAA_SERVER_GENERATE_INFERENCE_SERVICE_H_

#include <new>

#include <grpcpp/grpcpp.h>

#include "server/generate/errors.h"
#include "server/generate/generate_stream.h"
#include "server/generate/serving_context.h"
#include "swaa/v1/inference_service.grpc.pb.h"

namespace swaa::server {

// Ends at once.
class RefusedStream final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  explicit RefusedStream(const grpc::Status& status) { Finish(status); }
  void OnDone() override { delete this; }
};

// Takes and gives raw bytes: with messages of its own, gRPC would answer a request that does not
// parse with UNIMPLEMENTED and no word. Thread-safe.
class InferenceService final
    : public v1::InferenceService::WithRawCallbackMethod_Generate<v1::InferenceService::Service> {
 public:
  // `serving` outlives the service and its streams.
  explicit InferenceService(ServingContext* serving) : serving_(serving) {}

  grpc::ServerWriteReactor<grpc::ByteBuffer>* Generate(grpc::CallbackServerContext* call,
                                                       const grpc::ByteBuffer* request) override {
    try {
      return GenerateStream::Start(serving_, call, *request);
    } catch (const std::bad_alloc&) {
      AddErrorTrailers(serving_->out_of_memory, call);
      return new RefusedStream(ToGrpcStatus(serving_->out_of_memory));
    }
  }

 private:
  ServingContext* const serving_;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_GENERATE_INFERENCE_SERVICE_H_
