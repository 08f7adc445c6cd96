// Assembly and lifecycle.

#include "server/lifecycle/server.h"

#include <algorithm>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <set>
#include <system_error>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "engine/checkpoint/peft_adapter.h"
#include "engine/model/rank_slices.h"
#include "server/generate/errors.h"
#include "server/generate/steady_time.h"
#include "server/lifecycle/listen_check.h"
#include "server/lifecycle/shutdown_signals.h"
#include "server/lifecycle/warm_up.h"
#include "server/observation/memory_guard.h"
#include "server/settings/config.h"

namespace swaa::server {
namespace {

// How long the last words of requests that have ended may take to be written.
constexpr absl::Duration kLastWords = absl::Seconds(5);

std::string NameFromPath(const std::string& path) {
  std::filesystem::path clean = std::filesystem::path(path).lexically_normal();
  if (!clean.has_filename()) clean = clean.parent_path();
  return clean.extension() == ".gguf" ? clean.stem().string() : clean.filename().string();
}

std::string NameOf(const v1::ModelConfig& model) {
  return model.served_name().empty() ? NameFromPath(model.path()) : model.served_name();
}

std::string RandomId() {
  absl::BitGen generator;
  return absl::StrFormat("%016x", absl::Uniform<uint64_t>(generator));
}

// Says how far the loading is, about once a second.
std::function<void(double)> ProgressLogger() {
  return [last = SteadyNow()](double share) mutable {
    if (SteadyNow() - last < absl::Seconds(1)) return;
    last = SteadyNow();
    LogInfo(absl::StrFormat("packing weights: %.0f %%", 100 * share));
  };
}

std::vector<std::string> RecipeNames(const RecipeCatalog& recipes) {
  std::vector<std::string> names;
  for (const NamedRecipe& named : recipes.recipes()) names.push_back(named.name);
  return names;
}

std::string MiB(int64_t bytes) { return absl::StrFormat("%.0f MiB", bytes / 1048576.0); }

absl::StatusOr<Checkpoint> ReadCheckpoint(const v1::ModelConfig& model) {
  return LoadCheckpoint(model.path(),
                        model.load_format() == "dummy" ? LoadFormat::kDummy : LoadFormat::kAuto);
}

std::set<std::string> NamesOf(const AdapterRegistry& adapters) {
  std::set<std::string> names;
  for (const AdapterInfo& info : adapters.List()) names.insert(info.name);
  return names;
}

// What is wrong with an adapter of the configuration.
absl::Status InFile(const ServerOptions& options, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::Status(
      status.code(),
      absl::StrCat(options.config_path, ": lora.adapters: ", std::string(status.message())));
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

ModelDeviceOptions DeviceOptionsOf(const v1::ServerConfig& config) {
  ModelDeviceOptions device;
  device.operators.device = config.device().device();
  device.operators.gpu_memory_utilization = config.device().gpu_memory_utilization();
  device.operators.dtype = config.device().dtype();
  device.operators.threads = static_cast<int>(config.device().threads());
  device.operators.instruction_set = config.device().instruction_set();
  device.ranks = static_cast<int32_t>(config.device().tensor_parallel_size());
  // Zero, where nobody has set it: as suits the device.
  device.kv_cache_bytes = static_cast<int64_t>(config.device().kv_cache_bytes());
  device.max_step_tokens = static_cast<int32_t>(config.scheduling().max_batch_tokens());
  device.num_slots = static_cast<int32_t>(config.scheduling().max_running_requests());
  return device;
}

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

absl::Status Server::LoadModel(const MakeDevice& make_device) {
  LogInfo(absl::StrCat("loading ", config_.model().path()));
  SWAA_ASSIGN_OR_RETURN(checkpoint_, ReadCheckpoint(config_.model()));
  for (const std::string& warning : checkpoint_.warnings) LogWarning(warning);
  SWAA_ASSIGN_OR_RETURN(tokenizer_, Tokenizer::Create(checkpoint_.tokenizer));
  absl::StatusOr<std::unique_ptr<ChatFormat>> chat = ChatFormat::Create(*tokenizer_);
  ServingModel& model = serving_.model;
  if (chat.ok()) {
    chat_format_ = *std::move(chat);
  } else {
    model.no_chat_reason = std::string(chat.status().message());
    LogWarning(absl::StrCat("chat is not served: ", model.no_chat_reason));
  }
  model.served_name = NameOf(config_.model());
  SWAA_ASSIGN_OR_RETURN(model.more_names, ServedNames::Create(config_.model(), model.served_name));
  model.config = checkpoint_.config;
  model.defaults = checkpoint_.generation;
  model.tokenizer = tokenizer_.get();
  model.chat_format = chat_format_.get();
  model.thinking_marks = FindThinkingMarks(*tokenizer_);
  model.prompt_bound = PromptBound(*tokenizer_, checkpoint_.config.max_context_tokens);
  model.max_priority = static_cast<int32_t>(config_.scheduling().max_priority());

  ModelDeviceOptions device = DeviceOptionsOf(config_);
  device.on_progress = ProgressLogger();
  absl::StatusOr<std::unique_ptr<Device>> made = make_device(checkpoint_, device);
  if (absl::IsResourceExhausted(made.status())) {
    return absl::ResourceExhaustedError(absl::StrCat(
        std::string(made.status().message()), "; what takes memory beside the weights: ",
        "--kv-cache-bytes ", device.kv_cache_bytes, ", --max-batch-tokens ", device.max_step_tokens,
        ", --max-running-requests ", device.num_slots));
  }
  SWAA_RETURN_IF_ERROR(made.status());
  device_ = *std::move(made);
  serving_.device = device_->info();
  serving_.device_facts = [device = device_.get()](int32_t rank) { return device->Facts(rank); };
  LogInfo(absl::StrCat("loaded ", model.served_name, " on ", serving_.device.name, ": weights ",
                       MiB(serving_.device.weight_bytes), ", pool of ",
                       serving_.device.num_pages - 1, " pages"));
  return absl::OkStatus();
}

absl::Status Server::LoadAdapters() {
  const v1::LoraConfig& config = config_.lora();
  if (const absl::Status supports = device_->SupportsAdapters(); !supports.ok()) {
    serving_.no_adapters_reason = std::string(supports.message());
    return config.adapters().empty() ? absl::OkStatus() : InFile(options_, supports);
  }
  adapters_ = std::make_unique<AdapterRegistry>(
      AdapterRegistry::Options{.roots = {config.roots().begin(), config.roots().end()},
                               .max_resident = static_cast<int32_t>(config.max_resident())},
      [this](const std::string& folder, bool confined) -> absl::StatusOr<AdapterContent> {
        SWAA_ASSIGN_OR_RETURN(
            const LoraCheckpoint checkpoint,
            ReadPeftFolder(folder, checkpoint_.config, [&](const std::string& path) {
              return confined ? CheckBelowRoots(adapters_->options().roots, path)
                              : absl::OkStatus();
            }));
        SWAA_ASSIGN_OR_RETURN(auto weights, device_->LoadAdapter(checkpoint));
        LogInfo(absl::StrCat("loaded adapter ", folder, ": rank ", checkpoint.rank, ", ",
                             MiB(weights->bytes())));
        return AdapterContent{.weights = std::move(weights),
                              .rank = static_cast<uint32_t>(checkpoint.rank)};
      });
  serving_.adapters = adapters_.get();
  for (const v1::LoraSource& source : config.adapters()) {
    SWAA_RETURN_IF_ERROR(InFile(options_, adapters_->Load(source.name(), source.path()).status()));
  }
  return absl::OkStatus();
}

absl::StatusOr<RecipeCatalog> Server::MakeRecipes(const ServerOptions& options) const {
  absl::StatusOr<RecipeCatalog> catalog =
      RecipeCatalog::Create(options.recipes, checkpoint_.config.num_layers,
                            serving_.model.supports_thinking(), options.config.default_recipe(),
                            adapters_ == nullptr ? std::set<std::string>() : NamesOf(*adapters_));
  absl::Status status = catalog.status();
  if (status.ok()) status = serving_.model.more_names.CheckRecipes(*catalog);
  if (status.ok()) return catalog;
  if (options.config_path.empty()) return status;
  return absl::Status(status.code(),
                      absl::StrCat(options.config_path, ": ", std::string(status.message())));
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

namespace {

// Whole or not at all, so that a reader never sees half a number.
absl::Status WritePort(const std::string& path, int port) {
  const std::string temporary = absl::StrCat(path, ".tmp");
  {
    std::ofstream file(temporary);
    file << port << "\n";
    if (!file.flush()) {
      return absl::InvalidArgumentError(absl::StrCat("--port-file: cannot write ", temporary,
                                                     "; name a file in a writable folder"));
    }
  }
  if (std::rename(temporary.c_str(), path.c_str()) != 0) {
    return absl::InvalidArgumentError(absl::StrCat("--port-file: cannot rename to ", path));
  }
  return absl::OkStatus();
}

absl::Status AnnounceReady(const ServerOptions& options, const Server& server) {
  if (!options.port_file.empty()) {
    if (server.metrics_port() != 0) {
      SWAA_RETURN_IF_ERROR(
          WritePort(absl::StrCat(options.port_file, ".metrics"), server.metrics_port()));
    }
    SWAA_RETURN_IF_ERROR(WritePort(options.port_file, server.port()));
  }
  LogInfo(absl::StrCat("ready: gRPC on port ", server.port(),
                       server.metrics_port() == 0
                           ? std::string()
                           : absl::StrCat(", metrics on port ", server.metrics_port())));
  return absl::OkStatus();
}

}  // namespace

namespace {

// Yesterday's port is nobody's.
void RemovePortFiles(const std::string& port_file) {
  if (port_file.empty()) return;
  std::error_code error;
  std::filesystem::remove(port_file, error);
  std::filesystem::remove(absl::StrCat(port_file, ".metrics"), error);
}

}  // namespace

int RunServer(const ServerOptions& options, const MakeDevice& make_device) {
  ShutdownSignals signals;
  RemovePortFiles(options.port_file);
  absl::StatusOr<std::unique_ptr<Server>> server = Server::Start(options, make_device);
  absl::Status status = server.status();
  if (status.ok()) status = AnnounceReady(options, **server);
  if (!status.ok()) {
    LogError(std::string(status.message()));
    return 1;
  }
  signals.OnHangup([&server] { (*server)->Reload(); });
  (*server)->OnFailure([&signals] { signals.End(); });
  const int signal = signals.Await();
  signals.OnHangup([] { LogInfo("SIGHUP while draining: the configuration is not read again"); });
  const std::string cause =
      signal == 0 ? std::string("the server cannot go on") : absl::StrCat("signal ", signal);
  LogInfo(absl::StrCat(cause, ": draining; a second one ends at once"));
  (*server)->Drain();
  RemovePortFiles(options.port_file);
  const bool failed = (*server)->failed();
  (*server)->OnFailure(nullptr);
  server->reset();
  LogInfo("stopped");
  return failed ? 1 : 0;
}

absl::Status CheckServerOptions(const ServerOptions& options) {
  SWAA_RETURN_IF_ERROR(CheckAccess(options));
  SWAA_ASSIGN_OR_RETURN(Checkpoint checkpoint, ReadCheckpoint(options.config.model()));
  SWAA_ASSIGN_OR_RETURN(std::unique_ptr<Tokenizer> tokenizer,
                        Tokenizer::Create(checkpoint.tokenizer));
  const absl::StatusOr<std::unique_ptr<ChatFormat>> chat = ChatFormat::Create(*tokenizer);
  SWAA_RETURN_IF_ERROR(InFile(
      options, CheckRanks(checkpoint.config,
                          static_cast<int32_t>(options.config.device().tensor_parallel_size()))));
  std::set<std::string> adapters;
  for (const v1::LoraSource& source : options.config.lora().adapters()) {
    const auto read = ReadPeftFolder(source.path(), checkpoint.config,
                                     [](const std::string&) { return absl::OkStatus(); });
    SWAA_RETURN_IF_ERROR(InFile(options, read.status()));
    adapters.insert(source.name());
  }
  SWAA_ASSIGN_OR_RETURN(const RecipeCatalog recipes,
                        RecipeCatalog::Create(options.recipes, checkpoint.config.num_layers,
                                              chat.ok() && (*chat)->supports_thinking(),
                                              options.config.default_recipe(), adapters));
  SWAA_ASSIGN_OR_RETURN(
      const ServedNames names,
      ServedNames::Create(options.config.model(), NameOf(options.config.model())));
  SWAA_RETURN_IF_ERROR(names.CheckRecipes(recipes));
  return CheckExperiments(options, recipes);
}

}  // namespace swaa::server
