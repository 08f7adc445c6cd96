// What a server loads: model, adapters, the recipes that they allow; and the same checked without a
// start.

#include <filesystem>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "engine/checkpoint/peft_adapter.h"
#include "engine/model/rank_slices.h"
#include "server/generate/steady_time.h"
#include "server/lifecycle/server.h"

namespace swaa::server {
namespace {

std::string NameFromPath(const std::string& path) {
  std::filesystem::path clean = std::filesystem::path(path).lexically_normal();
  if (!clean.has_filename()) clean = clean.parent_path();
  return clean.extension() == ".gguf" ? clean.stem().string() : clean.filename().string();
}

std::string NameOf(const v1::ModelConfig& model) {
  return model.served_name().empty() ? NameFromPath(model.path()) : model.served_name();
}

// Says how far the loading is, about once a second, and how long it took.
std::function<void(double)> ProgressLogger() {
  return [begin = SteadyNow(), last = SteadyNow()](double share) mutable {
    const auto now = SteadyNow();
    if (share >= 1) {
      LogInfo(absl::StrFormat("packed weights in %.1f s", absl::ToDoubleSeconds(now - begin)));
    } else if (now - last >= absl::Seconds(1)) {
      last = now;
      LogInfo(absl::StrFormat("packing weights: %.0f %%", 100 * share));
    }
  };
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
