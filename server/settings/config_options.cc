// The server's options from its configuration, each checked under the name by which it
// was given. As long as the options are many.

#include <algorithm>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/generate/errors.h"
#include "server/recipes/recipe_catalog.h"
#include "server/settings/config.h"
#include "server/settings/values.h"

namespace swaa::server {
namespace {

constexpr size_t kMostRecipes = 200;
constexpr size_t kMostRecipeNameBytes = 64;
constexpr size_t kMostDescriptionBytes = 1024;
constexpr int kMostEdges = 100;
// Beyond these a number is a slip of the hand.
constexpr int64_t kMostThreads = 1024;
constexpr int64_t kMostBatchTokens = 1 << 20;
constexpr int64_t kMostRunningRequests = 1 << 16;
constexpr int64_t kMostQueuedRequests = 1 << 20;
constexpr int64_t kMostPriority = 1 << 20;
constexpr int64_t kMostConnections = 1 << 20;
constexpr char kDefaultRecipeKey[] = "default_recipe";
constexpr char kRecipesKey[] = "recipes";

absl::Duration FromProto(const google::protobuf::Duration& proto) {
  return absl::Seconds(proto.seconds()) + absl::Nanoseconds(proto.nanos());
}

// Checks settings, and names each as it was given.
class Checker {
 public:
  Checker(std::string file, const v1::ServerConfig& from_flags)
      : file_(std::move(file)), given_(KeysOf(from_flags)) {}

  absl::Status Bad(const std::string& key, const std::string& value,
                   const std::string& advice) const {
    return absl::InvalidArgumentError(absl::StrCat(NameOf(key), ": ", value, " ", advice));
  }

  absl::Status Take(const std::string& key, int64_t value, int64_t least, int64_t most,
                    int32_t* out) const {
    if (value < least) {
      return Bad(key, Quoted(absl::StrCat(value)), absl::StrCat("is too small; at least ", least));
    }
    if (value > most) {
      return Bad(key, Quoted(absl::StrCat(value)), absl::StrCat("is too large; at most ", most));
    }
    *out = static_cast<int32_t>(value);
    return absl::OkStatus();
  }

  absl::Status TakeBytes(const std::string& key, uint64_t value, int64_t least,
                         int64_t* out) const {
    if (static_cast<int64_t>(value) < least) {
      return Bad(key, Quoted(absl::StrCat(value)), absl::StrCat("is too small; at least ", least));
    }
    *out = static_cast<int64_t>(value);
    return absl::OkStatus();
  }

  absl::Status TakeDuration(const std::string& key, const google::protobuf::Duration& value,
                            absl::Duration least, absl::Duration* out) const {
    const absl::Duration duration = FromProto(value);
    // gRPC takes milliseconds in an int.
    constexpr absl::Duration kMost = absl::Hours(24 * 24);
    if (duration < least || duration > kMost) {
      return Bad(key, absl::FormatDuration(duration),
                 absl::StrCat("is out of range; from ", absl::FormatDuration(least), " to ",
                              absl::FormatDuration(kMost)));
    }
    *out = duration;
    return absl::OkStatus();
  }

  absl::Status TakeAddress(const std::string& key, const std::string& value,
                           std::string* out) const {
    const size_t colon = value.rfind(':');
    int port = -1;
    if (colon == std::string::npos || colon == 0 ||
        !absl::SimpleAtoi(value.substr(colon + 1), &port) || port < 0 || port > 65535) {
      return Bad(key, Quoted(value), "is no HOST:PORT, such as 127.0.0.1:50051 or [::]:50051");
    }
    *out = value;
    return absl::OkStatus();
  }

  template <typename T>
  absl::Status TakeChoice(const std::string& key, const std::string& value,
                          const std::vector<std::pair<std::string, T>>& choices, T* out) const {
    std::string names;
    for (const auto& [name, choice] : choices) {
      if (name == value) {
        *out = choice;
        return absl::OkStatus();
      }
      absl::StrAppend(&names, names.empty() ? "" : ", ", name);
    }
    return Bad(key, Quoted(value), absl::StrCat("is none of its values; take ", names));
  }

  absl::Status TakeEdges(const std::string& key,
                         const google::protobuf::RepeatedField<double>& edges,
                         std::vector<double>* out) const {
    if (edges.empty()) return absl::OkStatus();
    if (edges.size() > kMostEdges) {
      return Bad(key, absl::StrCat(edges.size()), absl::StrCat("edges; at most ", kMostEdges));
    }
    for (int i = 0; i < edges.size(); ++i) {
      if (edges[i] > (i == 0 ? 0 : edges[i - 1])) continue;
      return Bad(absl::StrCat(key, "[", i, "]"), absl::StrCat(edges[i]),
                 absl::StrCat("is not above ", i == 0 ? 0 : edges[i - 1], "; edges rise from 0"));
    }
    out->assign(edges.begin(), edges.end());
    return absl::OkStatus();
  }

 private:
  std::string NameOf(const std::string& key) const {
    if (!given_.contains(key)) return absl::StrCat(file_, file_.empty() ? "" : ": ", key);
    std::string flag = FlagOfKey(key);
    std::replace(flag.begin(), flag.end(), '_', '-');
    return absl::StrCat("--", flag);
  }

  const std::string file_;
  const std::set<std::string> given_;  // keys that flags set
};

absl::Status TakeModel(const Checker& check, const v1::ServerConfig& config, ServerOptions* out) {
  const v1::ModelConfig& model = config.model();
  if (model.path().empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--model: names no model; give a GGUF file or a Hugging Face folder",
                     out->config_path.empty() ? "" : ", or set model.path in the file"));
  }
  out->model_path = model.path();
  out->served_model_name = model.served_name();
  if (model.has_load_format()) {
    SWAA_RETURN_IF_ERROR(check.TakeChoice<LoadFormat>(
        "model.load_format", model.load_format(),
        {{"auto", LoadFormat::kAuto}, {"dummy", LoadFormat::kDummy}}, &out->load_format));
  }
  return absl::OkStatus();
}

absl::Status TakeDevice(const Checker& check, const v1::DeviceConfig& device, ServerOptions* out) {
  if (device.has_kv_cache_bytes()) {
    SWAA_RETURN_IF_ERROR(
        check.TakeBytes("device.kv_cache_bytes", device.kv_cache_bytes(), 1, &out->kv_cache_bytes));
  }
  if (device.has_threads()) {
    SWAA_RETURN_IF_ERROR(
        check.Take("device.threads", device.threads(), 0, kMostThreads, &out->threads));
  }
  if (device.has_dtype()) out->dtype = device.dtype();
  if (device.has_instruction_set()) out->instruction_set = device.instruction_set();
  if (device.has_device()) out->device = device.device();
  // The backend refuses what is no share.
  if (device.has_gpu_memory_utilization()) {
    out->gpu_memory_utilization = device.gpu_memory_utilization();
  }
  return absl::OkStatus();
}

absl::Status TakeScheduling(const Checker& check, const v1::SchedulingConfig& scheduling,
                            ServerOptions* out) {
  if (scheduling.has_max_batch_tokens()) {
    SWAA_RETURN_IF_ERROR(check.Take("scheduling.max_batch_tokens", scheduling.max_batch_tokens(), 1,
                                    kMostBatchTokens, &out->max_batch_tokens));
  }
  if (scheduling.has_max_running_requests()) {
    SWAA_RETURN_IF_ERROR(check.Take("scheduling.max_running_requests",
                                    scheduling.max_running_requests(), 1, kMostRunningRequests,
                                    &out->max_running_requests));
  }
  if (scheduling.has_max_queued_requests()) {
    SWAA_RETURN_IF_ERROR(check.Take("scheduling.max_queued_requests",
                                    scheduling.max_queued_requests(), 1, kMostQueuedRequests,
                                    &out->max_queued_requests));
  }
  if (scheduling.has_max_unread_bytes()) {
    SWAA_RETURN_IF_ERROR(check.TakeBytes("scheduling.max_unread_bytes",
                                         scheduling.max_unread_bytes(), 1024,
                                         &out->max_unread_bytes));
  }
  if (scheduling.has_max_priority()) {
    SWAA_RETURN_IF_ERROR(check.Take("scheduling.max_priority", scheduling.max_priority(), 0,
                                    kMostPriority, &out->max_priority));
  }
  if (scheduling.has_prefix_cache()) out->prefix_cache = scheduling.prefix_cache();
  return absl::OkStatus();
}

// What one client, or all of them, may hold.
absl::Status TakeConnectionBounds(const Checker& check, const v1::NetworkConfig& network,
                                  ServerOptions* out) {
  if (network.has_max_connections()) {
    SWAA_RETURN_IF_ERROR(check.Take("network.max_connections", network.max_connections(), 1,
                                    kMostConnections, &out->max_connections));
  }
  if (network.has_grpc_memory_bytes()) {
    SWAA_RETURN_IF_ERROR(check.TakeBytes("network.grpc_memory_bytes", network.grpc_memory_bytes(),
                                         int64_t{32} << 20, &out->grpc_memory_bytes));
  }
  const absl::Duration least = absl::Milliseconds(100);
  for (const auto& [key, given, value, taken] :
       {std::tuple{"network.max_connection_idle", network.has_max_connection_idle(),
                   &network.max_connection_idle(), &out->max_connection_idle},
        {"network.handshake_timeout", network.has_handshake_timeout(), &network.handshake_timeout(),
         &out->handshake_timeout},
        {"network.self_check_interval", network.has_self_check_interval(),
         &network.self_check_interval(), &out->self_check_interval},
        {"network.self_check_dead_after", network.has_self_check_dead_after(),
         &network.self_check_dead_after(), &out->self_check_dead_after}}) {
    if (given) SWAA_RETURN_IF_ERROR(check.TakeDuration(key, *value, least, taken));
  }
  return absl::OkStatus();
}

absl::Status TakeNetwork(const Checker& check, const v1::NetworkConfig& network,
                         ServerOptions* out) {
  if (network.has_listen_address()) {
    SWAA_RETURN_IF_ERROR(check.TakeAddress("network.listen_address", network.listen_address(),
                                           &out->listen_address));
  }
  if (!network.metrics_address().empty()) {
    SWAA_RETURN_IF_ERROR(check.TakeAddress("network.metrics_address", network.metrics_address(),
                                           &out->metrics_address));
  }
  if (network.has_drain_grace()) {
    SWAA_RETURN_IF_ERROR(check.TakeDuration("network.drain_grace", network.drain_grace(),
                                            absl::ZeroDuration(), &out->drain_grace));
  }
  if (network.has_max_connection_age() &&
      FromProto(network.max_connection_age()) > absl::ZeroDuration()) {
    SWAA_RETURN_IF_ERROR(check.TakeDuration("network.max_connection_age",
                                            network.max_connection_age(), absl::Milliseconds(1),
                                            &out->max_connection_age));
  }
  if (network.has_keepalive_interval()) {
    SWAA_RETURN_IF_ERROR(check.TakeDuration("network.keepalive_interval",
                                            network.keepalive_interval(), absl::Seconds(1),
                                            &out->keepalive_interval));
  }
  if (network.has_keepalive_timeout()) {
    SWAA_RETURN_IF_ERROR(check.TakeDuration("network.keepalive_timeout",
                                            network.keepalive_timeout(), absl::Seconds(1),
                                            &out->keepalive_timeout));
  }
  SWAA_RETURN_IF_ERROR(TakeConnectionBounds(check, network, out));
  if (network.has_min_client_ping_interval()) {
    return check.TakeDuration("network.min_client_ping_interval",
                              network.min_client_ping_interval(), absl::ZeroDuration(),
                              &out->min_client_ping_interval);
  }
  return absl::OkStatus();
}

absl::Status TakeStreaming(const Checker& check, const v1::StreamingConfig& streaming,
                           ServerOptions* out) {
  if (streaming.has_buffer_bytes()) {
    SWAA_RETURN_IF_ERROR(check.TakeBytes("streaming.buffer_bytes", streaming.buffer_bytes(), 1024,
                                         &out->stream_buffer_bytes));
  }
  if (streaming.has_slow_reader_timeout()) {
    return check.TakeDuration("streaming.slow_reader_timeout", streaming.slow_reader_timeout(),
                              absl::Milliseconds(100), &out->slow_reader_timeout);
  }
  return absl::OkStatus();
}

absl::Status TakeRetry(const Checker& check, const v1::RetryConfig& retry, DrainRate::Bounds* out) {
  constexpr absl::Duration kLeast = absl::Milliseconds(1);
  if (retry.has_initial_pushback()) {
    SWAA_RETURN_IF_ERROR(check.TakeDuration("retry.initial_pushback", retry.initial_pushback(),
                                            kLeast, &out->initial));
  }
  if (retry.has_min_pushback()) {
    SWAA_RETURN_IF_ERROR(
        check.TakeDuration("retry.min_pushback", retry.min_pushback(), kLeast, &out->shortest));
  }
  if (retry.has_max_pushback()) {
    SWAA_RETURN_IF_ERROR(
        check.TakeDuration("retry.max_pushback", retry.max_pushback(), kLeast, &out->longest));
  }
  if (out->shortest <= out->longest) return absl::OkStatus();
  return check.Bad("retry.min_pushback", absl::FormatDuration(out->shortest),
                   absl::StrCat("is above retry.max_pushback, ", absl::FormatDuration(out->longest),
                                "; lower it"));
}

absl::Status TakeLogging(const Checker& check, const v1::LoggingConfig& logging,
                         ServerOptions* out) {
  if (logging.has_format()) {
    SWAA_RETURN_IF_ERROR(check.TakeChoice<LogFormat>(
        "logging.format", logging.format(),
        {{"text", LogFormat::kText}, {"json", LogFormat::kJson}}, &out->log_format));
  }
  if (!logging.has_level()) return absl::OkStatus();
  std::vector<std::pair<std::string, std::string>> levels;
  for (const char* level : {"trace", "debug", "info", "warning", "error", "off"}) {
    levels.emplace_back(level, level);
  }
  return check.TakeChoice<std::string>("logging.level", logging.level(), levels, &out->log_level);
}

// The built-in recipes and the file's.
absl::Status TakeRecipes(const Checker& check, const v1::ServerConfig& config, ServerOptions* out) {
  if (static_cast<size_t>(config.recipes_size()) > kMostRecipes) {
    return check.Bad(kRecipesKey, absl::StrCat(config.recipes_size()),
                     absl::StrCat("recipes; at most ", kMostRecipes));
  }
  out->recipes = BuiltInRecipes();
  std::set<std::string> names;
  for (int i = 0; i < config.recipes_size(); ++i) {
    const v1::NamedRecipe& named = config.recipes(i);
    const std::string key = absl::StrCat(kRecipesKey, "[", i, "].name");
    const std::string& name = named.name();
    const bool plain = name.find_first_not_of(
                           "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                           "0123456789_.-") == std::string::npos;
    if (name.empty() || name.size() > kMostRecipeNameBytes || !plain) {
      return check.Bad(key, Quoted(name),
                       absl::StrCat("is no name; take 1 to ", kMostRecipeNameBytes,
                                    " letters, digits, '_', '-' or '.'"));
    }
    if (name == kCustomRecipeLabel || name == kNoRecipeLabel) {
      return check.Bad(key, Quoted(name), "has a meaning of its own in metrics; take another");
    }
    if (!names.insert(name).second) {
      return check.Bad(key, Quoted(name), "is there twice; names differ");
    }
    if (named.description().size() > kMostDescriptionBytes) {
      return check.Bad(absl::StrCat(kRecipesKey, "[", i, "].description"),
                       absl::StrCat(named.description().size()),
                       absl::StrCat("bytes; at most ", kMostDescriptionBytes));
    }
    SWAA_ASSIGN_OR_RETURN(RecipeSpec spec,
                          RecipeSpecFromProto(named.recipe(), absl::StrCat("recipes[", name, "]")));
    auto place = std::find_if(out->recipes.begin(), out->recipes.end(),
                              [&](const NamedRecipeSpec& known) { return known.name == name; });
    if (place == out->recipes.end()) place = out->recipes.emplace(place);
    *place = {name, std::move(spec), named.description()};
  }
  if (config.has_default_recipe()) out->default_recipe = config.default_recipe();
  for (const NamedRecipeSpec& named : out->recipes) {
    if (named.name == out->default_recipe) return absl::OkStatus();
  }
  std::vector<std::string> known;
  std::string list;
  for (const NamedRecipeSpec& named : out->recipes) {
    known.push_back(named.name);
    absl::StrAppend(&list, list.empty() ? "" : ", ", named.name);
  }
  const std::string nearest = NearestWord(out->default_recipe, known);
  return check.Bad(kDefaultRecipeKey, Quoted(out->default_recipe),
                   absl::StrCat("is no recipe; ",
                                nearest.empty() ? "" : absl::StrCat("did you mean ", nearest, "? "),
                                "There are ", list));
}

}  // namespace

absl::StatusOr<ServerOptions> MakeServerOptions(const std::string& config_path,
                                                const v1::ServerConfig& from_file,
                                                const v1::ServerConfig& from_flags) {
  ServerOptions options;
  options.config_path = config_path;
  options.from_file = from_file;
  options.from_flags = from_flags;
  v1::ServerConfig config = from_file;
  OverrideConfig(from_flags, &config);
  const Checker check(config_path, from_flags);
  SWAA_RETURN_IF_ERROR(TakeModel(check, config, &options));
  SWAA_RETURN_IF_ERROR(TakeDevice(check, config.device(), &options));
  SWAA_RETURN_IF_ERROR(TakeScheduling(check, config.scheduling(), &options));
  SWAA_RETURN_IF_ERROR(TakeNetwork(check, config.network(), &options));
  SWAA_RETURN_IF_ERROR(TakeStreaming(check, config.streaming(), &options));
  SWAA_RETURN_IF_ERROR(TakeRetry(check, config.retry(), &options.retry));
  const v1::MetricsConfig& metrics = config.metrics();
  MetricsEdges* edges = &options.metrics_edges;
  SWAA_RETURN_IF_ERROR(
      check.TakeEdges("metrics.seconds_edges", metrics.seconds_edges(), &edges->seconds));
  SWAA_RETURN_IF_ERROR(
      check.TakeEdges("metrics.ratio_edges", metrics.ratio_edges(), &edges->ratio));
  SWAA_RETURN_IF_ERROR(check.TakeEdges("metrics.batch_tokens_edges", metrics.batch_tokens_edges(),
                                       &edges->batch_tokens));
  SWAA_RETURN_IF_ERROR(TakeLogging(check, config.logging(), &options));
  SWAA_RETURN_IF_ERROR(TakeRecipes(check, config, &options));
  return options;
}

}  // namespace swaa::server
