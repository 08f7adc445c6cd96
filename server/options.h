// Server room: everything that `swaa serve` can be told.

#ifndef SWAA_SERVER_OPTIONS_H_
#define SWAA_SERVER_OPTIONS_H_

#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "engine/model/checkpoint.h"
#include "server/request_log.h"

namespace swaa::server {

struct ServerOptions {
  std::string model_path;
  std::string served_model_name;                   // empty: from the path
  std::string listen_address = "127.0.0.1:50051";  // port 0: any free one
  std::string metrics_address;                     // empty: no metrics
  std::string port_file;                           // empty: none
  std::string default_recipe = "full";
  int32_t max_batch_tokens = 512;
  int32_t max_running_requests = 64;
  int32_t max_queued_requests = 1024;
  int64_t kv_cache_bytes = int64_t{2} << 30;
  int64_t stream_buffer_bytes = int64_t{4} << 20;
  int32_t threads = 0;  // 0: all processors
  LoadFormat load_format = LoadFormat::kAuto;
  std::string dtype = "auto";
  std::string instruction_set = "auto";
  LogFormat log_format = LogFormat::kText;
  absl::Duration drain_grace = absl::Seconds(30);
  absl::Duration max_connection_age = absl::InfiniteDuration();
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_OPTIONS_H_
