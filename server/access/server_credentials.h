// The gRPC port's credentials: TLS whose certificate may change, and a check before every call.
//
// Over gRPC's C interface, as its C++ one has no certificates that change on demand (a provider
// polls its files, and a pair that does not match ends all handshakes) and no check without TLS.

#ifndef SWAA_SERVER_ACCESS_SERVER_CREDENTIALS_H_
#define SWAA_SERVER_ACCESS_SERVER_CREDENTIALS_H_

#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include <grpcpp/security/server_credentials.h>

#include "absl/status/status.h"
#include "server/access/tls_identity.h"

namespace swaa::server {

// Says whether a call may begin, by its path ("/swaa.v1.ControlService/Abort") and the values of
// its `authorization` header. Called on gRPC's threads, for every call of every service, before its
// handler; must not block. What it refuses with, the client gets as a bare status: gRPC sends no
// trailers from there.
using AuthorizeCall = std::function<absl::Status(
    std::string_view path, const std::vector<std::string_view>& authorization)>;

// `identity` null: no TLS; else it outlives the server, and each new connection gets what it holds
// then. Clients need certificates if it names authorities when this is called. `authorize` null:
// every call may begin. They outlive the server.
std::shared_ptr<grpc::ServerCredentials> MakeServerCredentials(const CurrentTlsIdentity* identity,
                                                               AuthorizeCall authorize);

}  // namespace swaa::server

#endif  // SWAA_SERVER_ACCESS_SERVER_CREDENTIALS_H_
