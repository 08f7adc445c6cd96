// What is written down about a request when it ends.

#ifndef SWAA_SERVER_OBSERVATION_REQUEST_LOG_H_
#define SWAA_SERVER_OBSERVATION_REQUEST_LOG_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/generation.h"
#include "server/observation/trace_context.h"

namespace swaa::server {

// What metrics call the recipe of a request that was refused before its recipe was known.
inline constexpr char kNoRecipeLabel[] = "none";

// What was counted while a request ran; its end counts the rest.
struct LiveCounts {
  int64_t tokens = 0;
  int64_t attended_keys = 0;  // of decoding
  int64_t full_attention_attended_keys = 0;
  bool first_token = false;
};

// One request, from arrival to its last word.
struct RequestRecord {
  std::string id;
  std::string caller;  // empty: nobody is asked who they are
  std::optional<TraceContext> trace;
  std::string recipe_label = kNoRecipeLabel;
  absl::Status status;  // as the client got it
  bool accepted = false;
  std::optional<FinishReason> finish_reason;  // absent unless status is OK
  GenerationStats stats;
  absl::Duration total;
  LiveCounts counted;
};

// What somebody did, or was not let do, to others' requests or to the server.
struct AuditRecord {
  std::string action;  // "Abort", or the path of a call that was not let begin
  std::string caller;  // empty: unknown
  std::string peer;    // as gRPC names it; empty: unknown
  std::string target;  // a request's id, an adapter, an experiment; empty: none
  absl::Status status;
};

enum class LogFormat { kText, kJson };

// By its name in the configuration, text or json.
inline LogFormat LogFormatOf(const std::string& name) {
  return name == "json" ? LogFormat::kJson : LogFormat::kText;
}

// "stop", "length", "cancelled"; "none" where absent.
std::string FinishReasonName(const std::optional<FinishReason>& reason);

// Sets up spdlog's default logger, on stderr, through a LogSink: to log never waits for whoever
// reads. What waits when the process exits is written first (FlushLog). Starts a thread.
// INVALID_ARGUMENT for a level that spdlog does not have.
absl::Status ConfigureLogging(LogFormat format, const std::string& level);

// The record as one line: `key=value` pairs, or a JSON object without its braces' time and level,
// which the logger adds.
std::string FormatRecord(const RequestRecord& record, LogFormat format);

// Writes it to the log: info where the request ended well or by its client's doing, else warning.
// Of requests that were refused 50 lines a second are written, 500 at once; how many were left out
// stands before the next one.
void LogRequest(const RequestRecord& record, LogFormat format);

// Writes it to the log, one that was refused as a warning, and of those as many as of requests.
void LogAudit(const AuditRecord& record, LogFormat format);

// From now on gRPC's own lines come in our format, as one line each and 5 a second.
void TakeOverGrpcLog();

// Lines that were left out since the start.
int64_t SuppressedLogLines();

// Lines that were lost since the start: nobody read them in time, or memory ran out.
int64_t LostLogLines();

// How long an end of the process waits for whoever reads the log.
inline constexpr absl::Duration kLogPatience = absl::Seconds(5);

// Waits until all lines so far are written, for kLogPatience at most. Async-signal-safe once
// ConfigureLogging was called.
void FlushLog();

// Logs a message that may hold any text, in either format. Use it instead of spdlog's own calls.
void LogInfo(const std::string& message);
void LogWarning(const std::string& message);
void LogError(const std::string& message);

}  // namespace swaa::server

#endif  // SWAA_SERVER_OBSERVATION_REQUEST_LOG_H_
