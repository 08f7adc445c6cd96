// A unary call that takes and gives raw bytes: with messages of its own, gRPC would answer one that
// does not parse with UNIMPLEMENTED and no word.

#ifndef SWAA_SERVER_CONTROL_RAW_CALL_H_
#define SWAA_SERVER_CONTROL_RAW_CALL_H_

#include <new>
#include <utility>

#include <grpcpp/grpcpp.h>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "server/generate/errors.h"
#include "server/generate/request_bytes.h"
#include "server/observation/memory_guard.h"

namespace swaa::server {

// A request of the control plane has names at most.
inline constexpr size_t kMostControlRequestBytes = 64 << 10;

// INVALID_ARGUMENT for bytes that are too many or no message of this type.
template <typename Request>
absl::StatusOr<Request> ParseControlRequest(grpc::ByteBuffer bytes) {
  if (bytes.Length() > kMostControlRequestBytes) {
    return MakeError(
        absl::StatusCode::kInvalidArgument, "limit_exceeded",
        absl::StrCat("request: ", bytes.Length(), " bytes; at most ", kMostControlRequestBytes));
  }
  Request request;
  if (grpc::SerializationTraits<Request>::Deserialize(&bytes, &request).ok()) return request;
  return MalformedRequest(Request::descriptor()->full_name());
}

// Runs what gives a status; where memory runs out in it, the status says so.
template <typename Work>
absl::Status WithinMemory(const Work& work) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    return MakeError(absl::StatusCode::kResourceExhausted, "out_of_memory",
                     "the server has not the memory for the answer now; try again later");
  }
}

// Ends the call with the status and its trailers, or with the response; where memory runs out in
// that, with RESOURCE_EXHAUSTED and no word.
template <typename Response>
void EndCall(grpc::CallbackServerContext* call, grpc::ServerUnaryReactor* reactor,
             const absl::Status& status, const Response& response, grpc::ByteBuffer* answer) {
  grpc::Status ended(grpc::StatusCode::RESOURCE_EXHAUSTED, "");
  GuardMemory("what a call ends with", [&] {
    grpc::Status said = ToGrpcStatus(status);
    if (said.ok()) {
      bool own = false;
      said = grpc::SerializationTraits<Response>::Serialize(response, answer, &own);
    }
    AddErrorTrailers(status, call);
    ended = std::move(said);
  });
  reactor->Finish(std::move(ended));  // a copy would take memory
}

// Parses the request, has it handled, and ends the call with what comes of it.
template <typename Request, typename Response>
grpc::ServerUnaryReactor* AnswerCall(
    grpc::CallbackServerContext* call, const grpc::ByteBuffer& bytes, grpc::ByteBuffer* answer,
    absl::FunctionRef<absl::Status(const Request&, Response*)> handle) {
  Response response;
  const absl::Status status = WithinMemory([&] {
    const absl::StatusOr<Request> request = ParseControlRequest<Request>(bytes);
    return request.ok() ? handle(*request, &response) : request.status();
  });
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  EndCall(call, reactor, status, response, answer);
  return reactor;
}

}  // namespace swaa::server

#endif  // SWAA_SERVER_CONTROL_RAW_CALL_H_
