// How a failure becomes a gRPC status with its trailers.

#include "server/generate/errors.h"

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/observation/printable.h"

namespace swaa::server {
namespace {

constexpr char kReasonPayload[] = "type.swaa.dev/error-reason";
constexpr char kPushbackPayload[] = "type.swaa.dev/retry-pushback-ms";
// gRPC percent-encodes the message into at most three times its bytes and sends it once more in the
// details, in base64; clients refuse metadata beyond 8 KiB.
constexpr size_t kMaxMessageBytes = 1200;
constexpr size_t kMaxQuotedBytes = 120;

// Cuts at a character's border.
std::string CutUtf8(const std::string& text, size_t max_bytes) {
  if (text.size() <= max_bytes) return text;
  size_t end = max_bytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  return absl::StrCat(text.substr(0, end), "...");
}

std::string DefaultReason(absl::StatusCode code) {
  std::string name = CodeName(code);
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return name;
}

// Protobuf's wire form, of the few fields that are needed of messages that Debian has no files of.
void AppendVarint(uint32_t tag, uint64_t value, std::string* out) {
  for (uint64_t number : {uint64_t{tag} << 3, value}) {
    for (; number >= 0x80; number >>= 7) out->push_back(static_cast<char>(number | 0x80));
    out->push_back(static_cast<char>(number));
  }
}
void AppendBytes(uint32_t tag, const std::string& bytes, std::string* out) {
  std::string head;
  AppendVarint(tag, bytes.size(), &head);
  head[0] = static_cast<char>(head[0] | 2);  // length-delimited; our tags are below 16
  absl::StrAppend(out, head, bytes);
}
// google.protobuf.Any.
std::string Any(const std::string& type, const std::string& value) {
  std::string any;
  AppendBytes(1, absl::StrCat("type.googleapis.com/google.rpc.", type), &any);
  AppendBytes(2, value, &any);
  return any;
}

// google.rpc.Status with an ErrorInfo (reason, domain) and, where a client may come again, a
// RetryInfo: github.com/googleapis/googleapis, google/rpc/{status,error_details}.proto.
std::string StatusDetails(const absl::Status& status, const std::string& message) {
  std::string details;
  AppendVarint(1, static_cast<uint64_t>(status.code()), &details);
  AppendBytes(2, message, &details);
  std::string info;
  AppendBytes(1, ErrorReason(status), &info);
  AppendBytes(2, "swaa.v1", &info);
  AppendBytes(3, Any("ErrorInfo", info), &details);
  const std::optional<int64_t> pushback = RetryPushbackMs(status);
  if (!pushback.has_value() || *pushback < 0) return details;
  std::string delay;  // google.protobuf.Duration
  AppendVarint(1, static_cast<uint64_t>(*pushback / 1000), &delay);
  AppendVarint(2, static_cast<uint64_t>(*pushback % 1000) * 1000000, &delay);
  std::string retry;
  AppendBytes(1, delay, &retry);
  AppendBytes(3, Any("RetryInfo", retry), &details);
  return details;
}

}  // namespace

absl::Status MakeError(absl::StatusCode code, const std::string& reason,
                       const std::string& message) {
  return WithReason(absl::Status(code, message), reason);
}

absl::Status WithReason(absl::Status status, const std::string& reason) {
  if (!status.ok() && !status.GetPayload(kReasonPayload).has_value()) {
    status.SetPayload(kReasonPayload, absl::Cord(reason));
  }
  return status;
}

absl::Status WithRetryPushback(absl::Status status, int64_t milliseconds) {
  if (!status.ok()) status.SetPayload(kPushbackPayload, absl::Cord(absl::StrCat(milliseconds)));
  return status;
}

std::string ErrorReason(const absl::Status& status) {
  if (auto reason = status.GetPayload(kReasonPayload); reason.has_value()) {
    return std::string(*reason);
  }
  return DefaultReason(status.code());
}

std::optional<int64_t> RetryPushbackMs(const absl::Status& status) {
  int64_t milliseconds = 0;
  auto payload = status.GetPayload(kPushbackPayload);
  if (payload.has_value() && absl::SimpleAtoi(std::string(*payload), &milliseconds)) {
    return milliseconds;
  }
  return std::nullopt;
}

std::string CodeName(absl::StatusCode code) { return absl::StatusCodeToString(code); }

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const std::string message = CutUtf8(std::string(status.message()), kMaxMessageBytes);
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), message,
                      StatusDetails(status, message));
}

void AddErrorTrailers(const absl::Status& status, grpc::ServerContextBase* context) {
  if (status.ok()) return;
  context->AddTrailingMetadata(kErrorReasonTrailer, ErrorReason(status));
  if (std::optional<int64_t> pushback = RetryPushbackMs(status); pushback.has_value()) {
    context->AddTrailingMetadata(kRetryPushbackTrailer, absl::StrCat(*pushback));
  }
}

std::string Quoted(const std::string& text) {
  std::string quoted = "\"";
  for (char c : Printable(CutUtf8(text, kMaxQuotedBytes))) {
    if (c == '"') quoted += '\\';
    quoted += c;
  }
  return quoted + "\"";
}

}  // namespace swaa::server
