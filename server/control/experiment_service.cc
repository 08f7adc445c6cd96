// Experiments over gRPC.

#include "server/control/experiment_service.h"

#include <functional>
#include <new>
#include <utility>

#include "absl/status/statusor.h"
#include "server/control/audit.h"
#include "server/control/raw_call.h"
#include "server/control/worker_call.h"
#include "server/experiments/experiments.h"
#include "server/generate/errors.h"

namespace swaa::server {
namespace {

// Takes the value out, if there is one.
template <typename T>
absl::Status Take(absl::StatusOr<T> from, T* to) {
  if (from.ok()) *to = *std::move(from);
  return from.status();
}

}  // namespace

grpc::ServerUnaryReactor* ExperimentService::ListExperiments(grpc::CallbackServerContext* call,
                                                             const grpc::ByteBuffer* request,
                                                             grpc::ByteBuffer* response) {
  return AnswerCall<v1::ListExperimentsRequest, v1::ListExperimentsResponse>(
      call, *request, response, [this](const auto&, v1::ListExperimentsResponse* answer) {
        *answer = serving_->experiments->List();
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* ExperimentService::GetReport(grpc::CallbackServerContext* call,
                                                       const grpc::ByteBuffer* request,
                                                       grpc::ByteBuffer* response) {
  return AnswerOnWorker<v1::GetReportRequest, v1::GetReportResponse>(
      serving_, call, *request, response,
      [this](const v1::GetReportRequest& asked, v1::GetReportResponse* answer) {
        return Take(serving_->experiments->GetReport(asked), answer);
      });
}

grpc::ServerUnaryReactor* ExperimentService::GetAssignment(grpc::CallbackServerContext* call,
                                                           const grpc::ByteBuffer* request,
                                                           grpc::ByteBuffer* response) {
  return AnswerCall<v1::GetAssignmentRequest, v1::GetAssignmentResponse>(
      call, *request, response,
      [this](const v1::GetAssignmentRequest& asked, v1::GetAssignmentResponse* answer) {
        return Take(serving_->experiments->GetAssignment(asked), answer);
      });
}

grpc::ServerUnaryReactor* ExperimentService::RecordOutcome(grpc::CallbackServerContext* call,
                                                           const grpc::ByteBuffer* request,
                                                           grpc::ByteBuffer* response) {
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  const auto end = [=](const absl::StatusOr<v1::RecordOutcomeResponse>& answer) {
    EndCall(call, reactor, answer.status(), answer.ok() ? *answer : v1::RecordOutcomeResponse(),
            response);
  };
  const absl::Status status = WithinMemory([&] {
    const auto parsed = ParseControlRequest<v1::RecordOutcomeRequest>(*request);
    if (parsed.ok()) serving_->experiments->RecordOutcome(*parsed, end);
    return parsed.status();
  });
  if (!status.ok()) end(status);
  return reactor;
}

grpc::ServerUnaryReactor* ExperimentService::StartExperiment(grpc::CallbackServerContext* call,
                                                             const grpc::ByteBuffer* request,
                                                             grpc::ByteBuffer* response) {
  return AnswerOnWorker<v1::StartExperimentRequest, v1::StartExperimentResponse>(
      serving_, call, *request, response,
      [=, this](const v1::StartExperimentRequest& asked, v1::StartExperimentResponse* answer) {
        return Audited(*serving_, *call, "StartExperiment", asked.experiment_id(),
                       [&](const Caller&) {
                         return Take(serving_->experiments->Start(asked.experiment_id()),
                                     answer->mutable_status());
                       });
      });
}

grpc::ServerUnaryReactor* ExperimentService::StopExperiment(grpc::CallbackServerContext* call,
                                                            const grpc::ByteBuffer* request,
                                                            grpc::ByteBuffer* response) {
  return AnswerOnWorker<v1::StopExperimentRequest, v1::StopExperimentResponse>(
      serving_, call, *request, response,
      [=, this](const v1::StopExperimentRequest& asked, v1::StopExperimentResponse* answer) {
        return Audited(*serving_, *call, "StopExperiment",
                       asked.arm().empty() ? asked.experiment_id()
                                           : absl::StrCat(asked.experiment_id(), " ", asked.arm()),
                       [&](const Caller&) {
                         return Take(
                             serving_->experiments->Stop(asked.experiment_id(), asked.arm()),
                             answer->mutable_status());
                       });
      });
}

}  // namespace swaa::server
