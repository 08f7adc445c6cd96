// Experiments over gRPC.

#include "server/control/experiment_service.h"

#include <utility>

#include "absl/status/statusor.h"
#include "server/experiments/experiments.h"
#include "server/generate/errors.h"

namespace swaa::server {
namespace {

// Ends the call with `status` and its trailers.
void End(grpc::CallbackServerContext* call, grpc::ServerUnaryReactor* reactor,
         const absl::Status& status) {
  AddErrorTrailers(status, call);
  reactor->Finish(ToGrpcStatus(status));
}

template <typename Response>
void Answer(grpc::CallbackServerContext* call, grpc::ServerUnaryReactor* reactor,
            absl::StatusOr<Response> answer, Response* response) {
  if (answer.ok()) *response = *std::move(answer);
  End(call, reactor, answer.status());
}

// Runs `work`, which may wait for the disk, on a worker. gRPC keeps call, request and response
// until the call is finished.
grpc::ServerUnaryReactor* OnWorker(ServingContext* serving, grpc::CallbackServerContext* call,
                                   std::function<void(grpc::ServerUnaryReactor*)> work) {
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  const auto posted =
      serving->workers->PostAdmission(0, [reactor, work = std::move(work)] { work(reactor); });
  if (!posted.ok()) End(call, reactor, posted.status());
  return reactor;
}

}  // namespace

grpc::ServerUnaryReactor* ExperimentService::ListExperiments(
    grpc::CallbackServerContext* call, const v1::ListExperimentsRequest*,
    v1::ListExperimentsResponse* response) {
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  *response = serving_->experiments->List();
  End(call, reactor, absl::OkStatus());
  return reactor;
}

grpc::ServerUnaryReactor* ExperimentService::GetReport(grpc::CallbackServerContext* call,
                                                       const v1::GetReportRequest* request,
                                                       v1::GetReportResponse* response) {
  return OnWorker(serving_, call, [=, this](grpc::ServerUnaryReactor* reactor) {
    Answer(call, reactor, serving_->experiments->GetReport(*request), response);
  });
}

grpc::ServerUnaryReactor* ExperimentService::GetAssignment(grpc::CallbackServerContext* call,
                                                           const v1::GetAssignmentRequest* request,
                                                           v1::GetAssignmentResponse* response) {
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  Answer(call, reactor, serving_->experiments->GetAssignment(*request), response);
  return reactor;
}

grpc::ServerUnaryReactor* ExperimentService::RecordOutcome(grpc::CallbackServerContext* call,
                                                           const v1::RecordOutcomeRequest* request,
                                                           v1::RecordOutcomeResponse* response) {
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  serving_->experiments->RecordOutcome(*request,
                                       [=](absl::StatusOr<v1::RecordOutcomeResponse> answer) {
                                         Answer(call, reactor, std::move(answer), response);
                                       });
  return reactor;
}

grpc::ServerUnaryReactor* ExperimentService::StartExperiment(
    grpc::CallbackServerContext* call, const v1::StartExperimentRequest* request,
    v1::StartExperimentResponse* response) {
  return OnWorker(serving_, call, [=, this](grpc::ServerUnaryReactor* reactor) {
    absl::StatusOr<v1::ExperimentStatus> status =
        serving_->experiments->Start(request->experiment_id());
    if (status.ok()) *response->mutable_status() = *std::move(status);
    End(call, reactor, status.status());
  });
}

grpc::ServerUnaryReactor* ExperimentService::StopExperiment(
    grpc::CallbackServerContext* call, const v1::StopExperimentRequest* request,
    v1::StopExperimentResponse* response) {
  return OnWorker(serving_, call, [=, this](grpc::ServerUnaryReactor* reactor) {
    absl::StatusOr<v1::ExperimentStatus> status =
        serving_->experiments->Stop(request->experiment_id(), request->arm());
    if (status.ok()) *response->mutable_status() = *std::move(status);
    End(call, reactor, status.status());
  });
}

}  // namespace swaa::server
