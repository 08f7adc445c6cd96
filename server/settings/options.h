// Everything that `swaa serve` can be told.

#ifndef SWAA_SERVER_SETTINGS_OPTIONS_H_
#define SWAA_SERVER_SETTINGS_OPTIONS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/recipe/recipe.h"
#include "server/experiments/experiments.h"
#include "server/experiments/shadows.h"
#include "server/generate/drain_rate.h"
#include "server/observation/metrics_edges.h"
#include "server/observation/request_log.h"
#include "swaa/v1/config.pb.h"

namespace swaa::server {

struct ServerOptions {
  std::string model_path;
  std::string served_model_name;                   // empty: from the path
  std::string listen_address = "127.0.0.1:50051";  // port 0: any free one
  std::string metrics_address;                     // empty: no metrics
  std::string port_file;                           // empty: none
  std::string default_recipe = "full";
  std::vector<NamedRecipeSpec> recipes = BuiltInRecipes();
  int32_t max_batch_tokens = 0;  // 0: as suits the device
  int32_t max_running_requests = 64;
  int32_t max_queued_requests = 1024;
  int64_t max_unread_bytes = int64_t{64} << 20;
  int32_t max_priority = 100;
  bool prefix_cache = true;
  int64_t kv_cache_bytes = 0;  // 0: as suits the device
  int64_t stream_buffer_bytes = int64_t{4} << 20;
  absl::Duration slow_reader_timeout = absl::Seconds(60);
  int32_t threads = 0;  // 0: all processors
  LoadFormat load_format = LoadFormat::kAuto;
  std::string device = "auto";
  double gpu_memory_utilization = 0.9;
  std::string dtype = "auto";
  std::string instruction_set = "auto";
  LogFormat log_format = LogFormat::kText;
  std::string log_level = "info";
  absl::Duration drain_grace = absl::Seconds(30);
  absl::Duration max_connection_age = absl::InfiniteDuration();
  absl::Duration keepalive_interval = absl::Seconds(60);
  absl::Duration keepalive_timeout = absl::Seconds(20);
  absl::Duration max_connection_idle = absl::Minutes(10);
  absl::Duration handshake_timeout = absl::Seconds(10);
  int32_t max_connections = 4096;
  int64_t grpc_memory_bytes = int64_t{256} << 20;
  absl::Duration self_check_interval = absl::Seconds(5);
  absl::Duration self_check_dead_after = absl::Seconds(60);
  absl::Duration min_client_ping_interval = absl::Seconds(10);
  DrainRate::Bounds retry;
  MetricsEdges metrics_edges;
  google::protobuf::RepeatedPtrField<v1::Experiment> experiments;
  Experiments::Options experiment_storage;
  Shadows::Options shadow;

  int processors = 1;  // that the process may use

  // Where they came from, to read the file again.
  std::string config_path;      // empty: no file
  v1::ServerConfig from_file;   // as the file was at the start
  v1::ServerConfig from_flags;  // what the command line sets; it overrides the file
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_SETTINGS_OPTIONS_H_
