// How a failure becomes a gRPC status with its trailers.
//
// Every error that leaves a handler carries `swaa-error-reason`, a snake_case word for machines;
// RESOURCE_EXHAUSTED also carries `grpc-retry-pushback-ms`, which gRPC's own retry policy obeys.
// Both stand in `grpc-status-details-bin` as well, as google.rpc.Status with ErrorInfo and
// RetryInfo.

#ifndef SWAA_SERVER_GENERATE_ERRORS_H_
#define SWAA_SERVER_GENERATE_ERRORS_H_

#include <cstdint>
#include <optional>
#include <string>

#include <grpcpp/grpcpp.h>

#include "absl/status/status.h"

namespace swaa::server {

inline constexpr char kErrorReasonTrailer[] = "swaa-error-reason";
inline constexpr char kRetryPushbackTrailer[] = "grpc-retry-pushback-ms";

// A status with a reason for machines.
absl::Status MakeError(absl::StatusCode code, const std::string& reason,
                       const std::string& message);

// `status` with `reason`, unless it has one already.
absl::Status WithReason(absl::Status status, const std::string& reason);

// `status` with the time after which a client may try again; -1: never.
absl::Status WithRetryPushback(absl::Status status, int64_t milliseconds);

// The reason given to `status`, else the one that its code stands for ("invalid_argument", ...).
std::string ErrorReason(const absl::Status& status);
std::optional<int64_t> RetryPushbackMs(const absl::Status& status);

// "INVALID_ARGUMENT" and so on, as logs and metrics name a code.
std::string CodeName(absl::StatusCode code);

// The status as gRPC sends it. Long messages are cut so that they fit a client's metadata limit.
grpc::Status ToGrpcStatus(const absl::Status& status);

// Adds the trailers of a failed call. Must be called before the call is finished.
void AddErrorTrailers(const absl::Status& status, grpc::ServerContextBase* context);

// A client's text, quoted for an error message: escaped where it is not printable, U+FFFD where it
// is not UTF-8, cut where long.
std::string Quoted(const std::string& text);

}  // namespace swaa::server

#endif  // SWAA_SERVER_GENERATE_ERRORS_H_
