// What is written down about a request when it ends.

#include "server/observation/request_log.h"

#include <chrono>
#include <cstdlib>
#include <memory>
#include <unistd.h>
#include <utility>
#include <vector>

#include <grpc/support/log.h>
#include <nlohmann/json.hpp>
#include <spdlog/pattern_formatter.h>
#include <spdlog/spdlog.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/generate/errors.h"
#include "server/observation/log_sink.h"
#include "server/observation/log_throttle.h"
#include "server/observation/printable.h"

namespace swaa::server {
namespace {

// Everything beyond ASCII as \u: no character of a client's can end or turn a line.
std::string Dump(const nlohmann::json& json) {
  return json.dump(-1, ' ', /*ensure_ascii=*/true, nlohmann::json::error_handler_t::replace);
}

// Text mode's quoting.
std::string Quote(const std::string& text) {
  std::string quoted = "\"";
  for (char c : Printable(text)) {
    if (c == '"') quoted += '\\';
    quoted += c;
  }
  return quoted + "\"";
}

// Prints a message as a JSON string, or as it is where it is already a list of members.
class JsonMessageFlag final : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&,
              spdlog::memory_buf_t& out) override {
    const std::string text(message.payload.data(), message.payload.size());
    const std::string members =
        text.rfind("\"event\":", 0) == 0 ? text : absl::StrCat("\"message\":", Dump(text));
    out.append(members.data(), members.data() + members.size());
  }
  std::unique_ptr<spdlog::custom_flag_formatter> clone() const override {
    return std::make_unique<JsonMessageFlag>();
  }
};

// In text mode nothing else keeps a message on its line.
class PrintableMessageFlag final : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&,
              spdlog::memory_buf_t& out) override {
    const std::string text = Printable({message.payload.data(), message.payload.size()});
    out.append(text.data(), text.data() + text.size());
  }
  std::unique_ptr<spdlog::custom_flag_formatter> clone() const override {
    return std::make_unique<PrintableMessageFlag>();
  }
};

// Never destroyed: threads may log while the process ends.
const std::shared_ptr<LogSink>& StderrSink() {
  static auto* const kSink =
      new const std::shared_ptr<LogSink>(std::make_shared<LogSink>(STDERR_FILENO));
  return *kSink;
}

// Refusals cost a client next to nothing, and gRPC complains of each of a bad client's streams:
// neither may fill a disk.
LogThrottle& RefusalThrottle() {
  static auto* const kThrottle = new LogThrottle(/*per_second=*/50, /*burst=*/500);
  return *kThrottle;
}
LogThrottle& GrpcThrottle() {
  static auto* const kThrottle = new LogThrottle(/*per_second=*/5, /*burst=*/50);
  return *kThrottle;
}

// Whether to write the line; says how many were left out before it.
bool AdmitLine(const char* what, LogThrottle* throttle) {
  const std::optional<int64_t> left_out = throttle->Admit(std::chrono::steady_clock::now());
  if (!left_out.has_value()) return false;
  if (*left_out > 0) LogWarning(absl::StrCat(what, ": ", *left_out, " lines were left out"));
  return true;
}

void TakeGrpcLine(gpr_log_func_args* line) {
  if (!AdmitLine("gRPC", &GrpcThrottle())) return;
  const std::string message = absl::StrCat("gRPC: ", line->message);
  if (line->severity == GPR_LOG_SEVERITY_ERROR) {
    LogWarning(message);  // mostly its clients' errors
  } else {
    LogInfo(message);
  }
}

int64_t Milliseconds(absl::Duration duration) { return absl::ToInt64Milliseconds(duration); }

// Scalars in their order, and no JSON object: to destroy one takes memory.
class LineFields {
 public:
  nlohmann::json& operator[](const char* key) { return fields_.emplace_back(key, nullptr).second; }
  auto begin() const { return fields_.begin(); }
  auto end() const { return fields_.end(); }

 private:
  std::vector<std::pair<absl::string_view, nlohmann::json>> fields_;
};

LineFields Fields(const RequestRecord& record) {
  const GenerationStats& stats = record.stats;
  LineFields fields;
  fields["event"] = "request";
  fields["id"] = record.id;
  if (!record.caller.empty()) fields["caller"] = record.caller;
  if (record.trace.has_value()) {
    fields["trace_id"] = record.trace->trace_id;
    fields["parent_span_id"] = record.trace->parent_id;
  }
  fields["recipe"] = record.recipe_label;
  fields["status"] = CodeName(record.status.code());
  if (record.finish_reason.has_value()) fields["finish"] = FinishReasonName(record.finish_reason);
  fields["prompt_tokens"] = stats.prompt_tokens;
  fields["cached_tokens"] = stats.cached_prompt_tokens;
  fields["completion_tokens"] = stats.completion_tokens;
  fields["queue_ms"] = Milliseconds(stats.queue_time);
  fields["ttft_ms"] = Milliseconds(stats.time_to_first_token);
  fields["total_ms"] = Milliseconds(record.total);
  fields["peak_kv_bytes"] = stats.peak_kv_bytes;
  if (!record.status.ok()) {
    fields["reason"] = ErrorReason(record.status);
    fields["error"] = std::string(record.status.message());
  }
  return fields;
}

LineFields Fields(const AuditRecord& record) {
  LineFields fields;
  fields["event"] = "audit";
  fields["action"] = record.action;
  if (!record.caller.empty()) fields["caller"] = record.caller;
  if (!record.peer.empty()) fields["peer"] = record.peer;
  if (!record.target.empty()) fields["target"] = record.target;
  fields["status"] = CodeName(record.status.code());
  if (!record.status.ok()) fields["error"] = std::string(record.status.message());
  return fields;
}

// One line: `key=value` pairs, or a JSON object without its braces.
std::string FormatFields(const LineFields& fields, LogFormat format) {
  std::string line;
  if (format == LogFormat::kJson) {
    for (const auto& [key, value] : fields) {
      absl::StrAppend(&line, line.empty() ? "" : ",", "\"", key, "\":", Dump(value));
    }
    return line;
  }
  for (const auto& [key, value] : fields) {
    if (key == "event") {
      absl::StrAppend(&line, value.get<std::string>());
      continue;
    }
    // Words stand bare; an id or a message that holds more is quoted and escaped, so that a line is
    // a line.
    const std::string text = value.is_string() ? value.get<std::string>() : Dump(value);
    const bool bare =
        !text.empty() && text.find_first_of(" \"\\=") == std::string::npos && IsPrintable(text);
    absl::StrAppend(&line, " ", key, "=", bare ? text : Quote(text));
  }
  return line;
}

}  // namespace

std::string FinishReasonName(const std::optional<FinishReason>& reason) {
  if (!reason.has_value()) return "none";
  switch (*reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
  }
  return "none";
}

absl::Status ConfigureLogging(LogFormat format, const std::string& level) {
  const spdlog::level::level_enum parsed = spdlog::level::from_str(level);
  if (parsed == spdlog::level::off && level != "off") {
    return absl::InvalidArgumentError(absl::StrCat(
        Quoted(level), " is no log level; take trace, debug, info, warning, error or off"));
  }
  auto logger = std::make_shared<spdlog::logger>("swaa", StderrSink());
  auto formatter = std::make_unique<spdlog::pattern_formatter>();
  if (format == LogFormat::kJson) {
    formatter->add_flag<JsonMessageFlag>('*').set_pattern(
        "{\"time\":\"%Y-%m-%dT%H:%M:%S.%e%z\",\"level\":\"%l\",%*}");
  } else {
    formatter->add_flag<PrintableMessageFlag>('*').set_pattern("%Y-%m-%d %H:%M:%S.%e %l %*");
  }
  logger->set_formatter(std::move(formatter));
  logger->set_level(parsed);
  // What it tells of is memory that runs out.
  logger->set_error_handler([](const std::string&) { StderrSink()->CountLost(); });
  spdlog::set_default_logger(std::move(logger));
  [[maybe_unused]] static const int kRegistered = std::atexit(&FlushLog);
  return absl::OkStatus();
}

std::string FormatRecord(const RequestRecord& record, LogFormat format) {
  return FormatFields(Fields(record), format);
}

void LogRequest(const RequestRecord& record, LogFormat format) {
  if (!record.accepted && !AdmitLine("refused requests", &RefusalThrottle())) return;
  const bool ours = record.status.code() == absl::StatusCode::kInternal ||
                    record.status.code() == absl::StatusCode::kUnknown ||
                    record.status.code() == absl::StatusCode::kResourceExhausted;
  spdlog::log(ours ? spdlog::level::warn : spdlog::level::info, "{}", FormatRecord(record, format));
}

void LogAudit(const AuditRecord& record, LogFormat format) {
  if (!record.status.ok() && !AdmitLine("refused requests", &RefusalThrottle())) return;
  spdlog::log(record.status.ok() ? spdlog::level::info : spdlog::level::warn, "{}",
              FormatFields(Fields(record), format));
}

void TakeOverGrpcLog() { gpr_set_log_function(&TakeGrpcLine); }

int64_t SuppressedLogLines() {
  return RefusalThrottle().total_suppressed() + GrpcThrottle().total_suppressed();
}

int64_t LostLogLines() { return StderrSink()->lost(); }

void FlushLog() { StderrSink()->AwaitWritten(kLogPatience); }

void LogInfo(const std::string& message) { spdlog::info("{}", message); }
void LogWarning(const std::string& message) { spdlog::warn("{}", message); }
void LogError(const std::string& message) { spdlog::error("{}", message); }

}  // namespace swaa::server
