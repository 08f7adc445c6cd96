// The flags of `swaa serve`.

#include "server/settings/flags.h"

#include <optional>

#include "absl/flags/flag.h"
#include "absl/flags/marshalling.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/generate/errors.h"
#include "server/settings/config.h"
#include "server/settings/values.h"

namespace swaa::server {

// A flag's value, and whether the command line gave it: what it did not give is the file's to say.
template <typename T>
struct Setting {
  T value{};
  bool given = false;
};

template <typename T>
bool AbslParseFlag(absl::string_view text, Setting<T>* setting, std::string* error) {
  setting->given = true;
  return absl::ParseFlag(text, &setting->value, error);
}
template <typename T>
std::string AbslUnparseFlag(const Setting<T>& setting) {
  return absl::UnparseFlag(setting.value);
}

// A number of bytes on the command line: 2GiB, 512MiB, 64KiB or plain bytes.
struct ByteSize {
  int64_t bytes = 0;
};

bool AbslParseFlag(absl::string_view text, ByteSize* size, std::string* error) {
  const std::optional<int64_t> bytes = ParseByteSize(std::string(text));
  if (!bytes.has_value()) {
    *error =
        "cannot parse; write a whole number of bytes, or one with KiB, MiB or GiB, such as 2GiB";
    return false;
  }
  size->bytes = *bytes;
  return true;
}

std::string AbslUnparseFlag(const ByteSize& size) { return FormatByteSize(size.bytes); }

// on or off on the command line.
struct OnOff {
  bool on = true;
};

bool AbslParseFlag(absl::string_view text, OnOff* value, std::string* error) {
  if (text != "on" && text != "off") {
    *error = "cannot parse; take on or off";
    return false;
  }
  value->on = text == "on";
  return true;
}

std::string AbslUnparseFlag(const OnOff& value) { return value.on ? "on" : "off"; }

}  // namespace swaa::server

using swaa::server::ByteSize;
using swaa::server::OnOff;
using swaa::server::Setting;
using Text = Setting<std::string>;
using Number = Setting<int32_t>;

ABSL_FLAG(
    std::string, config, "",
    "a YAML file with settings and recipes, see docs/configuration.md; flags override it, and "
    "its recipes are read again when it changes and on SIGHUP");
ABSL_FLAG(Text, model, Text{""}, "the model: a GGUF file, or a folder as Hugging Face has them");
ABSL_FLAG(Text, listen_address, Text{"127.0.0.1:50051"},
          "HOST:PORT to serve gRPC on; port 0 takes any free one");
ABSL_FLAG(Text, metrics_address, Text{""},
          "HOST:PORT to serve Prometheus metrics on, at /metrics; empty: nowhere");
ABSL_FLAG(std::string, port_file, "",
          "a file to write the gRPC port to once the server is ready; the metrics port goes to the "
          "same name with .metrics");
ABSL_FLAG(Text, served_model_name, Text{""}, "the model's name for clients; empty: from its path");
ABSL_FLAG(Text, default_recipe, Text{"full"}, "the recipe of requests that choose none");
ABSL_FLAG(Number, max_batch_tokens, Number{0},
          "most tokens computed in a step; if not given: 512 on the CPU, 8192 on a GPU");
ABSL_FLAG(Number, max_running_requests, Number{64}, "most requests in the batch");
ABSL_FLAG(Number, max_queued_requests, Number{1024}, "most requests that wait; more are refused");
ABSL_FLAG(Setting<ByteSize>, kv_cache_bytes, Setting<ByteSize>{},
          "memory for keys and values, such as 2GiB; if not given: 2 GiB on the CPU, all that is "
          "left on a GPU");
ABSL_FLAG(Setting<ByteSize>, stream_buffer_bytes, Setting<ByteSize>{{int64_t{4} << 20}},
          "most bytes of output that wait for one stream's reader; beyond it the request is ended");
ABSL_FLAG(
    Setting<OnOff>, prefix_cache, Setting<OnOff>{},
    "on or off: whether what earlier requests with the same beginning computed is used again");
ABSL_FLAG(Number, slow_reader_timeout_seconds, Number{60},
          "how long a reader may take nothing while output waits for it; then it is cut off");
ABSL_FLAG(Number, threads, Number{0}, "threads that compute; 0: every processor");
ABSL_FLAG(Text, load_format, Text{"auto"},
          "auto, or dummy: random weights of the model's shapes, for measurements");
ABSL_FLAG(Text, dtype, Text{"auto"}, "auto (bf16), or f32: slow, for tests");
ABSL_FLAG(Text, device, Text{"auto"},
          "auto (a GPU where there is one, else the CPU), cpu, cuda or cuda:n");
ABSL_FLAG(Setting<double>, gpu_memory_utilization, Setting<double>{0.9},
          "the share of the GPU's memory that the server may take");
ABSL_FLAG(Text, instruction_set, Text{"auto"}, "auto, amx, avx512_bf16, avx512, avx2 or generic");
ABSL_FLAG(Number, drain_grace_seconds, Number{30},
          "how long SIGTERM waits for running requests before it aborts them");
ABSL_FLAG(Number, max_connection_age_seconds, Number{0},
          "connections older than this are asked to come again; 0: never");
ABSL_FLAG(Text, log_format, Text{"text"}, "text or json");
ABSL_FLAG(Text, log_level, Text{"info"}, "trace, debug, info, warning, error or off");

namespace swaa::server {
namespace {

absl::Status CheckNotNegative(const std::string& name, const Number& number) {
  if (number.value >= 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "--", name, ": ", Quoted(absl::StrCat(number.value)), " is too small; at least 0"));
}

// Calls `set` with the flag's value if the command line gave it.
template <typename T, typename Set>
void IfGiven(const absl::Flag<Setting<T>>& flag, const Set& set) {
  if (const Setting<T> setting = absl::GetFlag(flag); setting.given) set(setting.value);
}

// The same for a whole number.
template <typename Set>
absl::Status IfGivenNumber(const char* name, const absl::Flag<Number>& flag, const Set& set) {
  const Number number = absl::GetFlag(flag);
  if (!number.given) return absl::OkStatus();
  SWAA_RETURN_IF_ERROR(CheckNotNegative(name, number));
  set(number.value);
  return absl::OkStatus();
}

void TakeTexts(v1::ServerConfig* config) {
  auto* model = config->mutable_model();
  auto* device = config->mutable_device();
  auto* network = config->mutable_network();
  auto* logging = config->mutable_logging();
  IfGiven(FLAGS_model, [&](const std::string& v) { model->set_path(v); });
  IfGiven(FLAGS_served_model_name, [&](const std::string& v) { model->set_served_name(v); });
  IfGiven(FLAGS_load_format, [&](const std::string& v) { model->set_load_format(v); });
  IfGiven(FLAGS_dtype, [&](const std::string& v) { device->set_dtype(v); });
  IfGiven(FLAGS_instruction_set, [&](const std::string& v) { device->set_instruction_set(v); });
  IfGiven(FLAGS_device, [&](const std::string& v) { device->set_device(v); });
  IfGiven(FLAGS_listen_address, [&](const std::string& v) { network->set_listen_address(v); });
  IfGiven(FLAGS_metrics_address, [&](const std::string& v) { network->set_metrics_address(v); });
  IfGiven(FLAGS_log_format, [&](const std::string& v) { logging->set_format(v); });
  IfGiven(FLAGS_log_level, [&](const std::string& v) { logging->set_level(v); });
  IfGiven(FLAGS_default_recipe, [&](const std::string& v) { config->set_default_recipe(v); });
}

absl::Status TakeNumbers(v1::ServerConfig* config) {
  auto* device = config->mutable_device();
  auto* scheduling = config->mutable_scheduling();
  auto* network = config->mutable_network();
  auto* streaming = config->mutable_streaming();
  IfGiven(FLAGS_kv_cache_bytes, [&](ByteSize v) { device->set_kv_cache_bytes(v.bytes); });
  IfGiven(FLAGS_stream_buffer_bytes, [&](ByteSize v) { streaming->set_buffer_bytes(v.bytes); });
  IfGiven(FLAGS_gpu_memory_utilization, [&](double v) { device->set_gpu_memory_utilization(v); });
  IfGiven(FLAGS_prefix_cache, [&](OnOff v) { scheduling->set_prefix_cache(v.on); });
  SWAA_RETURN_IF_ERROR(
      IfGivenNumber("threads", FLAGS_threads, [&](int32_t v) { device->set_threads(v); }));
  SWAA_RETURN_IF_ERROR(IfGivenNumber("max-batch-tokens", FLAGS_max_batch_tokens,
                                     [&](int32_t v) { scheduling->set_max_batch_tokens(v); }));
  SWAA_RETURN_IF_ERROR(IfGivenNumber("max-running-requests", FLAGS_max_running_requests,
                                     [&](int32_t v) { scheduling->set_max_running_requests(v); }));
  SWAA_RETURN_IF_ERROR(IfGivenNumber("max-queued-requests", FLAGS_max_queued_requests,
                                     [&](int32_t v) { scheduling->set_max_queued_requests(v); }));
  SWAA_RETURN_IF_ERROR(
      IfGivenNumber("drain-grace-seconds", FLAGS_drain_grace_seconds,
                    [&](int32_t v) { network->mutable_drain_grace()->set_seconds(v); }));
  SWAA_RETURN_IF_ERROR(
      IfGivenNumber("max-connection-age-seconds", FLAGS_max_connection_age_seconds,
                    [&](int32_t v) { network->mutable_max_connection_age()->set_seconds(v); }));
  return IfGivenNumber(
      "slow-reader-timeout-seconds", FLAGS_slow_reader_timeout_seconds,
      [&](int32_t v) { streaming->mutable_slow_reader_timeout()->set_seconds(v); });
}

}  // namespace

const std::vector<std::string>& ServeFlagNames() {
  static const auto* const kNames = new std::vector<std::string>{"model",
                                                                 "config",
                                                                 "listen_address",
                                                                 "metrics_address",
                                                                 "served_model_name",
                                                                 "default_recipe",
                                                                 "max_batch_tokens",
                                                                 "max_running_requests",
                                                                 "max_queued_requests",
                                                                 "kv_cache_bytes",
                                                                 "prefix_cache",
                                                                 "stream_buffer_bytes",
                                                                 "slow_reader_timeout_seconds",
                                                                 "threads",
                                                                 "dtype",
                                                                 "load_format",
                                                                 "instruction_set",
                                                                 "device",
                                                                 "gpu_memory_utilization",
                                                                 "drain_grace_seconds",
                                                                 "max_connection_age_seconds",
                                                                 "port_file",
                                                                 "log_format",
                                                                 "log_level"};
  return *kNames;
}

absl::StatusOr<ServerOptions> ServerOptionsFromFlags() {
  v1::ServerConfig flags;
  TakeTexts(&flags);
  SWAA_RETURN_IF_ERROR(TakeNumbers(&flags));
  v1::ServerConfig file;
  const std::string path = absl::GetFlag(FLAGS_config);
  if (!path.empty()) {
    SWAA_ASSIGN_OR_RETURN(file, ReadConfigFile(path));
  }
  SWAA_ASSIGN_OR_RETURN(ServerOptions options, MakeServerOptions(path, file, flags));
  options.port_file = absl::GetFlag(FLAGS_port_file);
  return options;
}

}  // namespace swaa::server
