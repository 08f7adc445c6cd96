// What a request's bytes tell before they are parsed.

#include "server/generate/request_bytes.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>
#include <grpcpp/impl/codegen/proto_utils.h>
#include <grpcpp/support/proto_buffer_reader.h>

#include "absl/strings/str_cat.h"
#include "server/generate/errors.h"
#include "server/generate/request_validation.h"

namespace swaa::server {
namespace {

using google::protobuf::internal::WireFormatLite;

// A request that a serialiser made has its id first; others are found when they are parsed.
constexpr int kMostFields = 32;

// Of messages that cost memory for each field; numbers do not.
constexpr int kMostFieldsToParse = 1 << 15;
constexpr int kMostDepth = 8;

// Walks a message without making anything of it. False: there are more than `budget` fields. What
// is malformed is left for the parser to refuse.
bool CountFields(google::protobuf::io::CodedInputStream* input,
                 const google::protobuf::Descriptor& message, int depth, int* budget) {
  using google::protobuf::FieldDescriptor;
  for (;;) {
    const uint32_t tag = input->ReadTag();
    if (tag == 0) return true;
    const FieldDescriptor* field =
        message.FindFieldByNumber(WireFormatLite::GetTagFieldNumber(tag));
    const bool number = field != nullptr && field->is_packable();
    if (!number && --*budget < 0) return false;
    const bool nested =
        field != nullptr && field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE &&
        WireFormatLite::GetTagWireType(tag) == WireFormatLite::WIRETYPE_LENGTH_DELIMITED;
    if (!nested || depth >= kMostDepth) {
      if (!WireFormatLite::SkipField(input, tag)) return true;
      continue;
    }
    uint32_t size = 0;
    if (!input->ReadVarint32(&size)) return true;
    const auto limit = input->PushLimit(static_cast<int>(size));
    if (!CountFields(input, *field->message_type(), depth + 1, budget)) return false;
    if (input->BytesUntilLimit() > 0 && !input->Skip(input->BytesUntilLimit())) return true;
    input->PopLimit(limit);
  }
}

absl::Status CheckFieldCount(const grpc::ByteBuffer& bytes) {
  grpc::ByteBuffer copy = bytes;  // of the handle
  grpc::ProtoBufferReader reader(&copy);
  if (!reader.status().ok()) return absl::OkStatus();
  google::protobuf::io::CodedInputStream input(&reader);
  int budget = kMostFieldsToParse;
  if (CountFields(&input, *v1::GenerateRequest::descriptor(), 0, &budget)) return absl::OkStatus();
  return MakeError(absl::StatusCode::kInvalidArgument, "limit_exceeded",
                   absl::StrCat("request: more than ", kMostFieldsToParse,
                                " fields and entries of lists, numbers aside; send fewer"));
}

}  // namespace

std::string PeekRequestId(const grpc::ByteBuffer& bytes) {
  grpc::ByteBuffer copy = bytes;  // of the handle
  grpc::ProtoBufferReader reader(&copy);
  if (!reader.status().ok()) return "";
  google::protobuf::io::CodedInputStream input(&reader);
  for (int i = 0; i < kMostFields; ++i) {
    const uint32_t tag = input.ReadTag();
    if (tag == 0) return "";
    const bool is_id =
        WireFormatLite::GetTagFieldNumber(tag) == v1::GenerateRequest::kRequestIdFieldNumber &&
        WireFormatLite::GetTagWireType(tag) == WireFormatLite::WIRETYPE_LENGTH_DELIMITED;
    if (!is_id) {
      if (!WireFormatLite::SkipField(&input, tag)) return "";
      continue;
    }
    uint32_t size = 0;
    std::string id;
    if (!input.ReadVarint32(&size) || size > kMaxRequestIdBytes ||
        !input.ReadString(&id, static_cast<int>(size)) || !ValidateRequestId(id).ok()) {
      return "";
    }
    return id;
  }
  return "";
}

absl::Status ParseRequest(grpc::ByteBuffer* bytes, v1::GenerateRequest* request) {
  if (absl::Status status = CheckFieldCount(*bytes); !status.ok()) {
    bytes->Clear();
    return status;
  }
  const grpc::Status parsed =
      grpc::SerializationTraits<v1::GenerateRequest>::Deserialize(bytes, request);
  bytes->Clear();
  if (parsed.ok()) return absl::OkStatus();
  return MalformedRequest(request->GetDescriptor()->full_name());
}

absl::Status MalformedRequest(const std::string& type) {
  return MakeError(absl::StatusCode::kInvalidArgument, "malformed_request",
                   absl::StrCat("request: the bytes are no ", type,
                                ", or a string in them is not UTF-8; send a message serialised "
                                "from the published proto"));
}

}  // namespace swaa::server
