// Tools: `swaa health`.

#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "tools/client.h"
#include "tools/commands.h"
#include "tools/unary_call.h"

ABSL_FLAG(bool, live, false,
          "ask whether the process is alive, which it is while it drains, instead of whether it "
          "takes requests");
ABSL_FLAG(uint32_t, timeout_seconds, 4, "how long to wait for the answer");

namespace swaa::tools {
namespace {

namespace health_pb = ::grpc::health::v1;

int Health(const std::vector<std::string>& arguments) {
  if (!arguments.empty()) {
    Fail("health", absl::InvalidArgumentError("takes flags alone"));
    return 2;
  }
  health_pb::HealthCheckRequest request;
  if (!absl::GetFlag(FLAGS_live)) request.set_service("swaa.v1.InferenceService");
  health_pb::HealthCheckResponse response;
  const absl::Status status = Ask(&health_pb::Health::Stub::Check, request, &response,
                                  absl::Seconds(absl::GetFlag(FLAGS_timeout_seconds)));
  if (!status.ok()) return Fail("health", status);
  std::printf("%s\n",
              health_pb::HealthCheckResponse::ServingStatus_Name(response.status()).c_str());
  return response.status() == health_pb::HealthCheckResponse::SERVING ? 0 : 1;
}

}  // namespace

Command HealthCommand() {
  return {"health",
          {.usage = "swaa health [flags]",
           .summary = "Ends with 0 where a server takes requests, else with 1: for probes.",
           .flag_names = {"address", "live", "timeout_seconds", "tls_ca", "tls_certificate",
                          "tls_key", "tls_server_name", "tls_unverified"}},
          &Health};
}

}  // namespace swaa::tools
