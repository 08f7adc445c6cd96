// Experiments over gRPC.

#ifndef SWAA_SERVER_CONTROL_EXPERIMENT_SERVICE_H_
#define SWAA_SERVER_CONTROL_EXPERIMENT_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include "server/generate/serving_context.h"
#include "swaa/v1/experiment_service.grpc.pb.h"

namespace swaa::server {

// Every method takes and gives raw bytes (raw_call.h).
template <typename Service>
using AllRawExperiments = v1::ExperimentService::WithRawCallbackMethod_ListExperiments<
    v1::ExperimentService::WithRawCallbackMethod_GetReport<
        v1::ExperimentService::WithRawCallbackMethod_GetAssignment<
            v1::ExperimentService::WithRawCallbackMethod_RecordOutcome<
                v1::ExperimentService::WithRawCallbackMethod_StartExperiment<
                    v1::ExperimentService::WithRawCallbackMethod_StopExperiment<Service>>>>>>;

// What takes storage's time runs on a worker, so that no call waits for another's report.
// Thread-safe.
class ExperimentService final : public AllRawExperiments<v1::ExperimentService::Service> {
 public:
  // `serving` outlives every call.
  explicit ExperimentService(ServingContext* serving) : serving_(serving) {}

  grpc::ServerUnaryReactor* ListExperiments(grpc::CallbackServerContext* call,
                                            const grpc::ByteBuffer* request,
                                            grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* GetReport(grpc::CallbackServerContext* call,
                                      const grpc::ByteBuffer* request,
                                      grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* GetAssignment(grpc::CallbackServerContext* call,
                                          const grpc::ByteBuffer* request,
                                          grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* RecordOutcome(grpc::CallbackServerContext* call,
                                          const grpc::ByteBuffer* request,
                                          grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* StartExperiment(grpc::CallbackServerContext* call,
                                            const grpc::ByteBuffer* request,
                                            grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* StopExperiment(grpc::CallbackServerContext* call,
                                           const grpc::ByteBuffer* request,
                                           grpc::ByteBuffer* response) override;

 private:
  ServingContext* const serving_;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_CONTROL_EXPERIMENT_SERVICE_H_
