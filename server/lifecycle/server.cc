// Assembly and lifecycle.

#include "server/lifecycle/server.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "server/generate/errors.h"
#include "server/generate/steady_time.h"
#include "server/lifecycle/listen_check.h"
#include "server/lifecycle/warm_up.h"
#include "server/observation/memory_guard.h"
#include "server/settings/config.h"

namespace swaa::server {
namespace {

// How long the last words of requests that have ended may take to be written.
constexpr absl::Duration kLastWords = absl::Seconds(5);

std::string RandomId() {
  absl::BitGen generator;
  return absl::StrFormat("%016x", absl::Uniform<uint64_t>(generator));
}

std::vector<std::string> RecipeNames(const RecipeCatalog& recipes) {
  std::vector<std::string> names;
  for (const NamedRecipe& named : recipes.recipes()) names.push_back(named.name);
  return names;
}

MetricsEdges EdgesOf(const v1::MetricsConfig& config) {
  MetricsEdges edges;
  for (const auto& [given, taken] : {std::pair{&config.seconds_edges(), &edges.seconds},
                                     {&config.ratio_edges(), &edges.ratio},
                                     {&config.batch_tokens_edges(), &edges.batch_tokens}}) {
    if (!given->empty()) taken->assign(given->begin(), given->end());
  }
  return edges;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerOptions& options,
                                                      const MakeDevice& make_device) {
  std::unique_ptr<Server> server(new Server(options));
  SWAA_RETURN_IF_ERROR(server->LoadAccess());
  SWAA_RETURN_IF_ERROR(server->TakeAddresses());
  SWAA_RETURN_IF_ERROR(server->LoadModel(make_device));
  SWAA_RETURN_IF_ERROR(server->LoadAdapters());
  SWAA_ASSIGN_OR_RETURN(RecipeCatalog recipes, server->MakeRecipes(options));
  server->serving_.recipes.Set(std::move(recipes));
  SWAA_RETURN_IF_ERROR(server->StartExperiments());
  SWAA_RETURN_IF_ERROR(server->StartEngine());
  SWAA_RETURN_IF_ERROR(server->StartMetrics());
  SWAA_RETURN_IF_ERROR(server->Listen());
  server->WatchConfig();
  server->WatchSecrets();
  return server;
}

Server::~Server() {
  config_watcher_.reset();
  secret_watchers_.clear();
  self_check_.reset();
  StopListening(absl::ZeroDuration());
  exposer_.reset();
  // None where the start has failed before it. A shadow waits for what the drain ends.
  if (engine_ != nullptr) engine_->StartDrain();
  shadows_.reset();
  engine_.reset();
  workers_.reset();
  control_workers_.reset();
}

// Before the model is loaded, which takes its time.
absl::Status Server::TakeAddresses() {
  SWAA_ASSIGN_OR_RETURN(open_file_limit_, RaiseOpenFileLimit());
  SWAA_ASSIGN_OR_RETURN(listener_,
                        Listener::Bind("--listen-address", config_.network().listen_address()));
  if (config_.network().metrics_address().empty()) return absl::OkStatus();
  return CheckCanListen("--metrics-address", config_.network().metrics_address());
}

absl::Status Server::StartEngine() {
  serving_.version = SWAA_VERSION;
  serving_.instance_id = RandomId();
  serving_.log_format = LogFormatOf(config_.logging().format());
  serving_.stream_buffer_bytes = static_cast<size_t>(config_.streaming().buffer_bytes());
  const auto recipes = serving_.recipes.Get();
  metrics_ = std::make_unique<Metrics>(*recipes, serving_.version, serving_.model.served_name,
                                       serving_.device.backend, EdgesOf(config_.metrics()));
  serving_.metrics = metrics_.get();
  // Three at least, one each for streams, small and large prompts; tokenising and serialising are
  // light beside the model.
  workers_ = std::make_unique<WorkerPool>(WorkerPool::Options{
      .threads = std::clamp(options_.processors / 4, 3, 8),
      .max_queued_admissions = config_.scheduling().max_queued_requests(),
      .max_admission_bytes = static_cast<int64_t>(config_.scheduling().max_unread_bytes())});
  serving_.workers = workers_.get();
  // Apart, so that no report delays a request, and no flood of requests an operator.
  control_workers_ =
      std::make_unique<WorkerPool>(WorkerPool::Options{.threads = 3, .max_queued_admissions = 16});
  serving_.control_workers = control_workers_.get();
  slow_readers_ =
      std::make_unique<SlowReaderWatch>(ToDuration(config_.streaming().slow_reader_timeout()));
  serving_.slow_readers = slow_readers_.get();
  serving_.drain_rate.set_bounds({.initial = ToDuration(config_.retry().initial_pushback()),
                                  .shortest = ToDuration(config_.retry().min_pushback()),
                                  .longest = ToDuration(config_.retry().max_pushback())});

  serving_.engine_options.max_batch_tokens = serving_.device.max_step_tokens;
  serving_.engine_options.max_running_requests =
      static_cast<int32_t>(config_.scheduling().max_running_requests());
  serving_.engine_options.max_queued_requests =
      static_cast<int32_t>(config_.scheduling().max_queued_requests());
  serving_.engine_options.max_context_tokens = checkpoint_.config.max_context_tokens;
  serving_.engine_options.prefix_cache = config_.scheduling().prefix_cache();
  serving_.engine_options.priority_aging =
      absl::ToChronoNanoseconds(ToDuration(config_.scheduling().priority_aging()));
  engine_ = Engine::Create(
      serving_.engine_options, device_.get(), tokenizer_.get(),
      {.on_step =
           [this](const StepRecord& step) {
             metrics_->OnStep(step);
             experiments_->SetStepModelError(step.model.error_ratio);
           },
       .on_device_lost =
           [this](const absl::Status& status) {
             const absl::string_view why = status.message();
             Fail({why.data(), why.size()});
           },
       .on_block = [this](const BlockChange& change) { kv_events_.OnBlock(change); }});
  serving_.engine = engine_.get();
  shadows_ =
      std::make_unique<Shadows>(ShadowOptions(options_.config), engine_.get(), &serving_.recipes,
                                adapters_.get(), experiments_.get(), metrics_.get());
  serving_.shadows = shadows_.get();
  absl::Status warm = WarmUp(engine_.get(), recipes->default_recipe().recipe);
  if (warm.ok()) return warm;
  return absl::Status(warm.code(), absl::StrCat("the model cannot answer a first request: ",
                                                std::string(warm.message())));
}

absl::Status Server::StartMetrics() {
  LoadCollector::Facts facts;
  facts.page_bytes = serving_.device.page_bytes;
  facts.max_loras = adapters_ == nullptr ? 0 : adapters_->options().max_resident;
  load_collector_ = std::make_shared<LoadCollector>(
      facts, [this] { return RecipeNames(*serving_.recipes.Get()); },
      [engine = engine_.get()] { return engine->Load(); },
      [workers = workers_.get()] { return workers->admission_load(); });
  device_collector_ = std::make_shared<DeviceCollector>(
      serving_.device.ranks,
      [device = device_.get()](int32_t rank) { return device->Memory(rank); },
      serving_.device_facts);
  if (adapters_ != nullptr) {
    adapter_collector_ = std::make_shared<AdapterCollector>(adapters_.get());
  }
  process_collector_ = std::make_shared<ProcessCollector>([this] {
    return ProcessCollector::Connections{
        .accepted = listener_->accepted(),
        .refused = listener_->refused(),
        .open = connection_guard_ == nullptr ? 0 : connection_guard_->open(),
        .cut_off = connection_guard_ == nullptr ? 0 : connection_guard_->cut_off()};
  });
  if (config_.network().metrics_address().empty()) return absl::OkStatus();
  try {
    // A connection that says nothing holds a thread until the timeout.
    exposer_ = std::make_unique<prometheus::Exposer>(std::vector<std::string>{
        "listening_ports", config_.network().metrics_address(), "num_threads", "16",
        "request_timeout_ms", "2000", "keep_alive_timeout_ms", "2000"});
  } catch (const std::exception& error) {
    return absl::UnavailableError(absl::StrCat(
        "--metrics-address: cannot listen on ", Quoted(config_.network().metrics_address()), ": ",
        error.what(), "; is the port taken, or the address not this machine's?"));
  }
  if (config_.access().metrics() == "token") {
    exposer_->RegisterAuth(
        [access = access_.get()](const std::string&, const std::string& password) {
          return access->MayObserve(password);
        },
        "swaa");
  }
  exposer_->RegisterCollectable(access_registry_);
  exposer_->RegisterCollectable(metrics_->registry());
  exposer_->RegisterCollectable(load_collector_);
  exposer_->RegisterCollectable(device_collector_);
  if (adapter_collector_ != nullptr) exposer_->RegisterCollectable(adapter_collector_);
  exposer_->RegisterCollectable(process_collector_);
  exposer_->RegisterCollectable(experiments_->metrics());
  metrics_port_ = exposer_->GetListeningPorts().at(0);
  return absl::OkStatus();
}

void Server::Fail(std::string_view why) {
  GuardMemory("a line of the log", [&] { LogError(std::string(why)); });
  std::lock_guard lock(failure_mutex_);
  failed_ = true;
  if (on_failure_) on_failure_();
}

void Server::OnFailure(std::function<void()> handler) {
  std::lock_guard lock(failure_mutex_);
  on_failure_ = std::move(handler);
  if (failed_ && on_failure_) on_failure_();
}

bool Server::failed() const {
  std::lock_guard lock(failure_mutex_);
  return failed_;
}

void Server::Drain() {
  const absl::Duration grace = ToDuration(config_.network().drain_grace());
  const absl::Time until = SteadyNow() + grace;
  serving_.draining.store(true);
  SetReady();
  engine_->StartDrain();
  serving_.usage.EndTurns();
  if (!engine_->AwaitIdle(grace)) {
    serving_.grace_over.store(true);
    LogWarning(absl::StrCat("requests still ran after ", absl::FormatDuration(grace), "; aborting ",
                            engine_->AbortAll()));
    engine_->AwaitIdle(kLastWords);
  }
  serving_.live_streams.AwaitNone(std::max(until - SteadyNow(), kLastWords));
  StopListening(absl::Milliseconds(200));
}

}  // namespace swaa::server
