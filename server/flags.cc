// Server room: the flags of `swaa serve`.

#include "server/flags.h"

#include <limits>

#include "absl/flags/flag.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/errors.h"

namespace swaa::server {

// A number of bytes on the command line: 2GiB, 512MiB, 64KiB or plain bytes.
struct ByteSize {
  int64_t bytes = 0;
};

bool AbslParseFlag(absl::string_view text, ByteSize* size, std::string* error) {
  size_t digits = 0;
  while (digits < text.size() && text[digits] >= '0' && text[digits] <= '9') ++digits;
  const std::string unit(text.substr(digits));
  int shift = -1;
  if (unit.empty() || unit == "B") shift = 0;
  if (unit == "KiB") shift = 10;
  if (unit == "MiB") shift = 20;
  if (unit == "GiB") shift = 30;
  if (unit == "TiB") shift = 40;
  int64_t count = 0;
  if (shift < 0 || !absl::SimpleAtoi(text.substr(0, digits), &count) ||
      count > (std::numeric_limits<int64_t>::max() >> shift)) {
    *error = "write a whole number of bytes, or one with KiB, MiB or GiB, such as 2GiB";
    return false;
  }
  size->bytes = count << shift;
  return true;
}

std::string AbslUnparseFlag(const ByteSize& size) {
  for (const auto& [shift, unit] : {std::pair{30, "GiB"}, {20, "MiB"}, {10, "KiB"}}) {
    if (size.bytes > 0 && size.bytes % (int64_t{1} << shift) == 0) {
      return absl::StrCat(size.bytes >> shift, unit);
    }
  }
  return absl::StrCat(size.bytes);
}

}  // namespace swaa::server

using swaa::server::ByteSize;

ABSL_FLAG(std::string, model, "", "the model: a GGUF file, or a folder as Hugging Face has them");
ABSL_FLAG(std::string, listen_address, "127.0.0.1:50051",
          "HOST:PORT to serve gRPC on; port 0 takes any free one");
ABSL_FLAG(std::string, metrics_address, "",
          "HOST:PORT to serve Prometheus metrics on, at /metrics; empty: nowhere");
ABSL_FLAG(std::string, port_file, "",
          "a file to write the gRPC port to once the server is ready; the metrics port goes to the "
          "same name with .metrics");
ABSL_FLAG(std::string, served_model_name, "", "the model's name for clients; empty: from its path");
ABSL_FLAG(std::string, default_recipe, "full", "the recipe of requests that choose none");
ABSL_FLAG(int32_t, max_batch_tokens, 512, "most tokens computed in a step");
ABSL_FLAG(int32_t, max_running_requests, 64, "most requests in the batch");
ABSL_FLAG(int32_t, max_queued_requests, 1024, "most requests that wait; more are refused");
ABSL_FLAG(ByteSize, kv_cache_bytes, (ByteSize{int64_t{2} << 30}),
          "memory for keys and values, such as 2GiB");
ABSL_FLAG(ByteSize, stream_buffer_bytes, (ByteSize{int64_t{4} << 20}),
          "most bytes of output that wait for one stream's reader; beyond it the request is ended");
ABSL_FLAG(int32_t, threads, 0, "threads that compute; 0: every processor");
ABSL_FLAG(std::string, load_format, "auto",
          "auto, or dummy: random weights of the model's shapes, for measurements");
ABSL_FLAG(std::string, dtype, "auto", "auto (bf16), or f32: slow, for tests");
ABSL_FLAG(std::string, instruction_set, "auto", "auto, amx, avx512, avx2 or generic");
ABSL_FLAG(int32_t, drain_grace_seconds, 30,
          "how long SIGTERM waits for running requests before it aborts them");
ABSL_FLAG(int32_t, max_connection_age_seconds, 0,
          "connections older than this are asked to come again; 0: never");
ABSL_FLAG(std::string, log_format, "text", "text or json");
ABSL_FLAG(std::string, log_level, "info", "trace, debug, info, warning, error or off");

namespace swaa::server {
namespace {

absl::Status BadFlag(const std::string& name, const std::string& value, const std::string& advice) {
  return absl::InvalidArgumentError(absl::StrCat("--", name, ": ", Quoted(value), " ", advice));
}

absl::Status CheckAtLeast(const std::string& name, int64_t value, int64_t least) {
  if (value >= least) return absl::OkStatus();
  return BadFlag(name, absl::StrCat(value), absl::StrCat("is too small; at least ", least));
}

absl::Status CheckAddress(const std::string& name, const std::string& value) {
  const size_t colon = value.rfind(':');
  int port = -1;
  if (colon != std::string::npos && colon > 0 && absl::SimpleAtoi(value.substr(colon + 1), &port) &&
      port >= 0 && port <= 65535) {
    return absl::OkStatus();
  }
  return BadFlag(name, value, "is no HOST:PORT, such as 127.0.0.1:50051 or [::]:50051");
}

absl::Status CheckFlags() {
  if (absl::GetFlag(FLAGS_model).empty()) {
    return BadFlag("model", "", "names no model; give a GGUF file or a Hugging Face folder");
  }
  SWAA_RETURN_IF_ERROR(CheckAddress("listen-address", absl::GetFlag(FLAGS_listen_address)));
  if (const std::string metrics = absl::GetFlag(FLAGS_metrics_address); !metrics.empty()) {
    SWAA_RETURN_IF_ERROR(CheckAddress("metrics-address", metrics));
  }
  SWAA_RETURN_IF_ERROR(CheckAtLeast("max-batch-tokens", absl::GetFlag(FLAGS_max_batch_tokens), 1));
  SWAA_RETURN_IF_ERROR(
      CheckAtLeast("max-running-requests", absl::GetFlag(FLAGS_max_running_requests), 1));
  SWAA_RETURN_IF_ERROR(
      CheckAtLeast("max-queued-requests", absl::GetFlag(FLAGS_max_queued_requests), 1));
  SWAA_RETURN_IF_ERROR(
      CheckAtLeast("kv-cache-bytes", absl::GetFlag(FLAGS_kv_cache_bytes).bytes, 1));
  SWAA_RETURN_IF_ERROR(
      CheckAtLeast("stream-buffer-bytes", absl::GetFlag(FLAGS_stream_buffer_bytes).bytes, 1024));
  SWAA_RETURN_IF_ERROR(CheckAtLeast("threads", absl::GetFlag(FLAGS_threads), 0));
  SWAA_RETURN_IF_ERROR(
      CheckAtLeast("drain-grace-seconds", absl::GetFlag(FLAGS_drain_grace_seconds), 0));
  return CheckAtLeast("max-connection-age-seconds", absl::GetFlag(FLAGS_max_connection_age_seconds),
                      0);
}

absl::StatusOr<LogFormat> LogFormatFlag() {
  const std::string format = absl::GetFlag(FLAGS_log_format);
  if (format == "text") return LogFormat::kText;
  if (format == "json") return LogFormat::kJson;
  return BadFlag("log-format", format, "is no format; take text or json");
}

absl::StatusOr<LoadFormat> LoadFormatFlag() {
  const std::string format = absl::GetFlag(FLAGS_load_format);
  if (format == "auto") return LoadFormat::kAuto;
  if (format == "dummy") return LoadFormat::kDummy;
  return BadFlag("load-format", format, "is no way to load; take auto or dummy");
}

}  // namespace

const std::vector<std::string>& ServeFlagNames() {
  static const auto* const kNames = new std::vector<std::string>{"model",
                                                                 "listen_address",
                                                                 "metrics_address",
                                                                 "served_model_name",
                                                                 "default_recipe",
                                                                 "max_batch_tokens",
                                                                 "max_running_requests",
                                                                 "max_queued_requests",
                                                                 "kv_cache_bytes",
                                                                 "stream_buffer_bytes",
                                                                 "threads",
                                                                 "dtype",
                                                                 "load_format",
                                                                 "instruction_set",
                                                                 "drain_grace_seconds",
                                                                 "max_connection_age_seconds",
                                                                 "port_file",
                                                                 "log_format",
                                                                 "log_level"};
  return *kNames;
}

int ThreadsFlag() { return absl::GetFlag(FLAGS_threads); }

absl::Status ConfigureLoggingFromFlags() {
  SWAA_ASSIGN_OR_RETURN(LogFormat format, LogFormatFlag());
  absl::Status status = ConfigureLogging(format, absl::GetFlag(FLAGS_log_level));
  if (status.ok()) return status;
  return absl::InvalidArgumentError(absl::StrCat("--log-level: ", std::string(status.message())));
}

absl::StatusOr<ServerOptions> ServerOptionsFromFlags() {
  SWAA_RETURN_IF_ERROR(CheckFlags());
  ServerOptions options;
  SWAA_ASSIGN_OR_RETURN(options.log_format, LogFormatFlag());
  SWAA_ASSIGN_OR_RETURN(options.load_format, LoadFormatFlag());
  options.model_path = absl::GetFlag(FLAGS_model);
  options.served_model_name = absl::GetFlag(FLAGS_served_model_name);
  options.listen_address = absl::GetFlag(FLAGS_listen_address);
  options.metrics_address = absl::GetFlag(FLAGS_metrics_address);
  options.port_file = absl::GetFlag(FLAGS_port_file);
  options.default_recipe = absl::GetFlag(FLAGS_default_recipe);
  options.max_batch_tokens = absl::GetFlag(FLAGS_max_batch_tokens);
  options.max_running_requests = absl::GetFlag(FLAGS_max_running_requests);
  options.max_queued_requests = absl::GetFlag(FLAGS_max_queued_requests);
  options.kv_cache_bytes = absl::GetFlag(FLAGS_kv_cache_bytes).bytes;
  options.stream_buffer_bytes = absl::GetFlag(FLAGS_stream_buffer_bytes).bytes;
  options.threads = absl::GetFlag(FLAGS_threads);
  options.dtype = absl::GetFlag(FLAGS_dtype);
  options.instruction_set = absl::GetFlag(FLAGS_instruction_set);
  options.drain_grace = absl::Seconds(absl::GetFlag(FLAGS_drain_grace_seconds));
  if (int32_t age = absl::GetFlag(FLAGS_max_connection_age_seconds); age > 0) {
    options.max_connection_age = absl::Seconds(age);
  }
  return options;
}

}  // namespace swaa::server
