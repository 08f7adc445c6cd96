// Tools: how a client reaches its server, as the flags of every client say.

#ifndef SWAA_TOOLS_CONNECTION_H_
#define SWAA_TOOLS_CONNECTION_H_

#include <memory>
#include <string>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "absl/status/statusor.h"

namespace swaa::tools {

struct Connection {
  std::string address;  // HOST:PORT
  std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::InsecureChannelCredentials();
  std::string server_name;  // that the certificate must have; empty: the address's host
  std::string token;        // sent with every call; empty: none
};

// The flags' names: address, those of TLS, and the token's file.
std::vector<std::string> ConnectionFlagNames();

// --address.
std::string AddressFlag();

// INVALID_ARGUMENT or NOT_FOUND names the flag whose file cannot be used.
absl::StatusOr<Connection> ConnectionFromFlags();

// Connects when first used. Every call on it carries the token.
std::shared_ptr<grpc::Channel> OpenChannel(const Connection& connection,
                                           grpc::ChannelArguments arguments = {});

}  // namespace swaa::tools

#endif  // SWAA_TOOLS_CONNECTION_H_
