// What every request handler needs to reach.

#ifndef SWAA_SERVER_GENERATE_SERVING_CONTEXT_H_
#define SWAA_SERVER_GENERATE_SERVING_CONTEXT_H_

#include <atomic>
#include <cstddef>
#include <functional>
#include <string>

#include "engine/device/device.h"
#include "engine/engine.h"
#include "server/access/access.h"
#include "server/access/caller_usage.h"
#include "server/access/request_owners.h"
#include "server/adapters/adapter_registry.h"
#include "server/experiments/experiments.h"
#include "server/experiments/shadows.h"
#include "server/generate/drain_rate.h"
#include "server/generate/errors.h"
#include "server/generate/live_count.h"
#include "server/generate/pending_admissions.h"
#include "server/generate/serving_model.h"
#include "server/generate/slow_reader_watch.h"
#include "server/generate/worker_pool.h"
#include "server/lifecycle/connection_guard.h"
#include "server/observation/metrics.h"
#include "server/observation/request_log.h"
#include "server/recipes/current_recipes.h"

namespace swaa::server {

// Made before the first request and destroyed after the last; what it points to is thread-safe or
// immutable.
struct ServingContext {
  ServingModel model;
  DeviceInfo device;
  std::function<kernels::DeviceFacts(int32_t rank)> device_facts;  // as Device::Facts
  EngineOptions engine_options;
  std::string version;
  std::string instance_id;
  LogFormat log_format = LogFormat::kText;
  // Most bytes of events that wait for a stream's reader.
  size_t stream_buffer_bytes = size_t{4} << 20;

  const Access* access = nullptr;  // null: everybody may do everything
  CurrentRecipes recipes;
  AdapterRegistry* adapters = nullptr;  // null: the device computes none
  std::string no_adapters_reason;       // then
  Engine* engine = nullptr;
  WorkerPool* workers = nullptr;
  WorkerPool* control_workers = nullptr;  // what the control plane waits for the disk for
  Metrics* metrics = nullptr;
  Experiments* experiments = nullptr;
  Shadows* shadows = nullptr;
  SlowReaderWatch* slow_readers = nullptr;
  ConnectionGuard* connections = nullptr;  // null: nobody watches them

  // Made before it is needed, when there may be no memory.
  const absl::Status out_of_memory =
      MakeError(absl::StatusCode::kResourceExhausted, "out_of_memory",
                "the server has not the memory for the request now; try again later or send less "
                "text");

  DrainRate drain_rate;
  LiveCount live_streams;
  PendingAdmissions pending;
  RequestOwners owners;
  CallerUsage usage;
  std::atomic<bool> draining{false};
  std::atomic<bool> grace_over{false};  // what the engine aborts from now on, the drain aborts
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_GENERATE_SERVING_CONTEXT_H_
