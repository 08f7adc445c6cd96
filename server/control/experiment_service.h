// Experiments over gRPC.

#ifndef SWAA_SERVER_CONTROL_EXPERIMENT_SERVICE_H_
#define SWAA_SERVER_CONTROL_EXPERIMENT_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include "server/generate/serving_context.h"
#include "swaa/v1/experiment_service.grpc.pb.h"

namespace swaa::server {

// What takes storage's time runs on a worker, so that no call waits for another's report.
class ExperimentService final : public v1::ExperimentService::CallbackService {
 public:
  // `serving` outlives every call.
  explicit ExperimentService(ServingContext* serving) : serving_(serving) {}

  grpc::ServerUnaryReactor* ListExperiments(grpc::CallbackServerContext* call,
                                            const v1::ListExperimentsRequest* request,
                                            v1::ListExperimentsResponse* response) override;
  grpc::ServerUnaryReactor* GetReport(grpc::CallbackServerContext* call,
                                      const v1::GetReportRequest* request,
                                      v1::GetReportResponse* response) override;
  grpc::ServerUnaryReactor* GetAssignment(grpc::CallbackServerContext* call,
                                          const v1::GetAssignmentRequest* request,
                                          v1::GetAssignmentResponse* response) override;
  grpc::ServerUnaryReactor* RecordOutcome(grpc::CallbackServerContext* call,
                                          const v1::RecordOutcomeRequest* request,
                                          v1::RecordOutcomeResponse* response) override;
  grpc::ServerUnaryReactor* StartExperiment(grpc::CallbackServerContext* call,
                                            const v1::StartExperimentRequest* request,
                                            v1::StartExperimentResponse* response) override;
  grpc::ServerUnaryReactor* StopExperiment(grpc::CallbackServerContext* call,
                                           const v1::StopExperimentRequest* request,
                                           v1::StopExperimentResponse* response) override;

 private:
  ServingContext* const serving_;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_CONTROL_EXPERIMENT_SERVICE_H_
