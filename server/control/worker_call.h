// A unary call that is handled on a worker of the control plane.

#ifndef SWAA_SERVER_CONTROL_WORKER_CALL_H_
#define SWAA_SERVER_CONTROL_WORKER_CALL_H_

#include <functional>
#include <new>
#include <utility>

#include <grpcpp/grpcpp.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/control/raw_call.h"
#include "server/generate/errors.h"
#include "server/generate/serving_context.h"

namespace swaa::server {

// Parses the request and has it handled on a worker, where it may wait for the disk. gRPC keeps the
// call and `answer` until the call is finished.
template <typename Request, typename Response>
grpc::ServerUnaryReactor* AnswerOnWorker(
    ServingContext* serving, grpc::CallbackServerContext* call, const grpc::ByteBuffer& bytes,
    grpc::ByteBuffer* answer, std::function<absl::Status(const Request&, Response*)> handle) {
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  const absl::Status status = WithinMemory([&] {
    absl::StatusOr<Request> request = ParseControlRequest<Request>(bytes);
    if (!request.ok()) return request.status();
    const auto posted = serving->control_workers->PostAdmission(
        0, [=, request = *std::move(request), handle = std::move(handle)] {
          Response response;
          absl::Status handled;
          try {
            handled = handle(request, &response);
          } catch (const std::bad_alloc&) {
            response.Clear();
            handled =
                MakeError(absl::StatusCode::kResourceExhausted, "out_of_memory",
                          "the server has not the memory for the answer now; try again later, "
                          "or make the report from the file with `swaa experiment report --data`");
          }
          EndCall(call, reactor, handled, response, answer);
        });
    return posted.status();
  });
  if (!status.ok()) EndCall(call, reactor, status, Response(), answer);
  return reactor;
}

}  // namespace swaa::server

#endif  // SWAA_SERVER_CONTROL_WORKER_CALL_H_
