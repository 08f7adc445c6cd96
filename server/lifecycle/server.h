// Assembly and lifecycle.

#ifndef SWAA_SERVER_LIFECYCLE_SERVER_H_
#define SWAA_SERVER_LIFECYCLE_SERVER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include <grpcpp/grpcpp.h>
#include <prometheus/exposer.h>
#include <prometheus/registry.h>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/engine.h"
#include "engine/model/model_device.h"
#include "server/access/access.h"
#include "server/access/tls_identity.h"
#include "server/adapters/adapter_registry.h"
#include "server/control/control_service.h"
#include "server/control/experiment_service.h"
#include "server/experiments/experiments.h"
#include "server/experiments/shadows.h"
#include "server/generate/inference_service.h"
#include "server/generate/serving_context.h"
#include "server/lifecycle/connection_guard.h"
#include "server/lifecycle/listener.h"
#include "server/lifecycle/self_check.h"
#include "server/observation/adapter_collector.h"
#include "server/observation/device_collector.h"
#include "server/observation/process_collector.h"
#include "server/settings/file_watcher.h"
#include "server/settings/options.h"
#include "server/vllm_engine/gateway_context.h"
#include "server/vllm_engine/vllm_engine_service.h"

namespace swaa::server {

// What the model is computed on, made as CreateModelDevice makes it.
using MakeDevice = std::function<absl::StatusOr<std::unique_ptr<Device>>(
    const Checkpoint&, const ModelDeviceOptions&)>;

// A server that answers requests from Start's return until Drain or its destructor. Not
// thread-safe; its requests run on threads of its own.
class Server {
 public:
  // Loads the model, answers a request of its own, listens. The status says which flag to change.
  static absl::StatusOr<std::unique_ptr<Server>> Start(
      const ServerOptions& options, const MakeDevice& make_device = &CreateModelDevice);
  // Ends what is left at once.
  ~Server();

  // Takes no new request; waits up to the grace time for those that run, then aborts them.
  void Drain();

  // Reads the configuration file again, and those of TLS and tokens, soon, on other threads: its
  // recipes are those of all requests from then on; a file that is wrong changes nothing. What
  // comes of it is logged and counted.
  void Reload();

  // What to do once the server can serve no longer (its device is lost, no client reaches it): the
  // process can then only end. Called in another thread, or at once if it is so; must not block.
  void OnFailure(std::function<void()> handler);
  bool failed() const;

  int port() const { return listener_->port(); }
  int metrics_port() const { return metrics_port_; }  // 0: no metrics
  // What its request handlers reach, for those who would call the engine without gRPC between.
  const ServingContext& serving() const { return serving_; }

 private:
  explicit Server(const ServerOptions& options) : options_(options), config_(options_.config) {}

  absl::Status TakeAddresses();
  // TLS's files and the token file.
  absl::Status LoadAccess();
  void TakeTls(TlsIdentity identity);
  absl::Status ReloadTls();
  void WatchSecrets();
  void MakeCredentials();
  absl::Status LoadModel(const MakeDevice& make_device);
  // The registry, if the device computes adapters, and those of the configuration.
  absl::Status LoadAdapters();
  absl::StatusOr<RecipeCatalog> MakeRecipes(const ServerOptions& options) const;
  // The experiments that the options configure, checked against these recipes.
  absl::StatusOr<ExperimentSet> MakeExperiments(const ServerOptions& options,
                                                const RecipeCatalog& recipes) const;
  absl::Status StartExperiments();
  absl::Status StartEngine();
  absl::Status StartMetrics();
  absl::Status Listen();
  // Says why, in the log, and calls OnFailure's handler. Throws nothing.
  void Fail(std::string_view why);
  void MakeServices();
  bool IsReady() const { return reached_.load() && !serving_.draining.load(); }
  // Tells health checks whether new requests are welcome.
  void SetReady();
  void StopListening(absl::Duration patience);
  void WatchConfig();
  absl::Status TryReload();

  const ServerOptions options_;
  const v1::ServerConfig& config_;  // of the options
  ServingContext serving_;
  // In order of making; each outlives what comes after it.
  std::shared_ptr<prometheus::Registry> access_registry_;
  std::unique_ptr<CurrentTlsIdentity> tls_;  // null: no TLS
  std::unique_ptr<Access> access_;           // null: everybody may do everything
  Checkpoint checkpoint_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<ChatFormat> chat_format_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<AdapterRegistry> adapters_;
  std::unique_ptr<Metrics> metrics_;
  std::unique_ptr<Experiments> experiments_;
  std::shared_ptr<LoadCollector> load_collector_;
  std::shared_ptr<DeviceCollector> device_collector_;
  std::shared_ptr<AdapterCollector> adapter_collector_;  // null: the device computes none
  std::shared_ptr<ProcessCollector> process_collector_;
  std::unique_ptr<WorkerPool> workers_;
  std::unique_ptr<WorkerPool> control_workers_;
  std::unique_ptr<SlowReaderWatch> slow_readers_;
  KvEventLog kv_events_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Shadows> shadows_;
  std::unique_ptr<prometheus::Exposer> exposer_;
  std::unique_ptr<InferenceService> inference_service_;
  std::unique_ptr<ControlService> control_service_;
  std::unique_ptr<ExperimentService> experiment_service_;
  std::unique_ptr<GatewayContext> gateway_;
  std::unique_ptr<VllmEngineService> vllm_engine_service_;
  std::unique_ptr<Listener> listener_;
  std::unique_ptr<ConnectionGuard> connection_guard_;
  std::shared_ptr<grpc::ServerCredentials> credentials_;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor_;
  std::unique_ptr<grpc::Server> grpc_server_;
  std::unique_ptr<SelfCheck> self_check_;
  std::mutex reload_tls_mutex_;
  std::unique_ptr<FileWatcher> config_watcher_;
  std::vector<std::unique_ptr<FileWatcher>> secret_watchers_;
  mutable std::mutex failure_mutex_;
  bool failed_ ABSL_GUARDED_BY(failure_mutex_) = false;
  std::function<void()> on_failure_ ABSL_GUARDED_BY(failure_mutex_);
  int metrics_port_ = 0;
  int64_t open_file_limit_ = 0;
  std::atomic<bool> reached_{true};  // by new clients, as the self-check has it
};

// What a configuration says of shadows.
Shadows::Options ShadowOptions(const v1::ServerConfig& config);

// What is wrong with the options' experiments and shadows, given the model's recipes.
absl::Status CheckExperiments(const ServerOptions& options, const RecipeCatalog& recipes);

// What is wrong with the options' files of TLS and tokens.
absl::Status CheckAccess(const ServerOptions& options);

// The options of the device that `swaa serve` with this configuration computes on.
ModelDeviceOptions DeviceOptionsOf(const v1::ServerConfig& config);

// `swaa serve`: starts, says so, waits for SIGTERM or SIGINT, drains. The process's exit code.
int RunServer(const ServerOptions& options, const MakeDevice& make_device);

// What of the options only the model can judge, judged by opening it, without packing weights.
absl::Status CheckServerOptions(const ServerOptions& options);

}  // namespace swaa::server

#endif  // SWAA_SERVER_LIFECYCLE_SERVER_H_
