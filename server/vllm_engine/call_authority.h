// By which address a call came.

#ifndef SWAA_SERVER_VLLM_ENGINE_CALL_AUTHORITY_H_
#define SWAA_SERVER_VLLM_ENGINE_CALL_AUTHORITY_H_

#include <string>

#include <grpcpp/grpcpp.h>

namespace swaa::server {

// HTTP/2's :authority: the HOST:PORT that the client was told to call.
inline std::string AuthorityOf(const grpc::ServerContextBase& call) {
  const grpc::string_ref authority = call.ExperimentalGetAuthority();
  return std::string(authority.data(), authority.size());
}

}  // namespace swaa::server

#endif  // SWAA_SERVER_VLLM_ENGINE_CALL_AUTHORITY_H_
