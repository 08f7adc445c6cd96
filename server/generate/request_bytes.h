// What a request's bytes tell before they are parsed.

#ifndef SWAA_SERVER_GENERATE_REQUEST_BYTES_H_
#define SWAA_SERVER_GENERATE_REQUEST_BYTES_H_

#include <string>

#include <grpcpp/support/byte_buffer.h>

#include "absl/status/status.h"
#include "swaa/v1/generation.pb.h"

namespace swaa::server {

// The request_id among the first fields of a serialised GenerateRequest, for logs and aborts while
// it waits; empty where there is none, or not there. Skips what it does not look at, so that its
// time does not grow with the prompt.
std::string PeekRequestId(const grpc::ByteBuffer& bytes);

// INVALID_ARGUMENT for bytes that are no GenerateRequest, or one of so many parts that it would
// take many times its bytes (an empty chat message has two bytes on the wire). Empties `bytes`.
absl::Status ParseRequest(grpc::ByteBuffer* bytes, v1::GenerateRequest* request);

// INVALID_ARGUMENT for bytes that are no message of this type.
absl::Status MalformedRequest(const std::string& type);

}  // namespace swaa::server

#endif  // SWAA_SERVER_GENERATE_REQUEST_BYTES_H_
