// Calls that touch others' requests or the server itself, written down.

#ifndef SWAA_SERVER_CONTROL_AUDIT_H_
#define SWAA_SERVER_CONTROL_AUDIT_H_

#include <memory>
#include <string>

#include <grpcpp/grpcpp.h>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "server/generate/serving_context.h"
#include "server/observation/request_log.h"

namespace swaa::server {

// Has it handled for whoever calls, and writes into the log who that was, what they wanted, and
// what came of it. `call` is not finished meanwhile.
inline absl::Status Audited(const ServingContext& serving, const grpc::ServerContextBase& call,
                            const std::string& action, const std::string& target,
                            absl::FunctionRef<absl::Status(const Caller&)> handle) {
  const absl::StatusOr<std::shared_ptr<const Caller>> caller = CallerOf(serving.access, call);
  const absl::Status status = caller.ok() ? handle(**caller) : caller.status();
  LogAudit({.action = action,
            .caller = caller.ok() ? (*caller)->name : std::string(),
            .peer = call.peer(),
            .target = target,
            .status = status},
           serving.log_format);
  return status;
}

}  // namespace swaa::server

#endif  // SWAA_SERVER_CONTROL_AUDIT_H_
