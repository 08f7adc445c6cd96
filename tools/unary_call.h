// Tools: one unary call of a server.

#ifndef SWAA_TOOLS_UNARY_CALL_H_
#define SWAA_TOOLS_UNARY_CALL_H_

#include <grpcpp/grpcpp.h>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/status_macros.h"
#include "tools/client.h"

namespace swaa::tools {

// Calls the method at --address and waits; the status is as ToStatus has it, or names a flag of the
// connection.
//
//   Ask(&v1::ControlService::Stub::GetLoad, v1::GetLoadRequest(), &load);
template <typename Stub, typename Request, typename Response>
absl::Status Ask(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                 const Request& request, Response* response,
                 absl::Duration patience = absl::Seconds(10)) {
  SWAA_ASSIGN_OR_RETURN(const Connection connection, ConnectionFromFlags());
  Stub stub(OpenChannel(connection));
  grpc::ClientContext call;
  call.set_deadline(absl::ToChronoTime(absl::Now() + patience));
  return ToStatus((stub.*method)(&call, request, response), call);
}

}  // namespace swaa::tools

#endif  // SWAA_TOOLS_UNARY_CALL_H_
