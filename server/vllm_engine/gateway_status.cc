// Statuses as a gateway understands them.

#include "server/vllm_engine/gateway_status.h"

#include <string>

#include "server/generate/errors.h"

namespace swaa::server {
namespace {

absl::StatusCode CodeForGateway(absl::StatusCode code, bool never) {
  switch (code) {
    case absl::StatusCode::kOutOfRange:
      return absl::StatusCode::kInvalidArgument;
    case absl::StatusCode::kAlreadyExists:
      return absl::StatusCode::kAborted;
    case absl::StatusCode::kResourceExhausted:
      return never ? absl::StatusCode::kFailedPrecondition : code;
    default:
      return code;
  }
}

}  // namespace

absl::Status ForGateway(const absl::Status& status) {
  const absl::StatusCode code = CodeForGateway(status.code(), RetryPushbackMs(status) == -1);
  absl::Status changed = MakeError(code, ErrorReason(status), std::string(status.message()));
  if (const auto pushback = RetryPushbackMs(status); pushback.has_value()) {
    changed = WithRetryPushback(changed, *pushback);
  }
  return changed;
}

grpc::Status ForGateway(const grpc::Status& status,
                        const std::multimap<grpc::string_ref, grpc::string_ref>& trailers,
                        grpc::ServerContextBase* call) {
  bool never = false;
  for (const std::string name : {kErrorReasonTrailer, kRetryPushbackTrailer}) {
    const auto found = trailers.find(name);
    if (found == trailers.end()) continue;
    const std::string value(found->second.data(), found->second.size());
    never = never || (name == kRetryPushbackTrailer && value == "-1");
    call->AddTrailingMetadata(name, value);
  }
  const auto code = CodeForGateway(static_cast<absl::StatusCode>(status.error_code()), never);
  return grpc::Status(static_cast<grpc::StatusCode>(code), status.error_message(),
                      status.error_details());
}

}  // namespace swaa::server
