// A Device that runs a checkpoint's transformer on a backend.

#include "engine/model/model_device.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "engine/model/adapter_weights.h"
#include "engine/model/step_check.h"
#include "engine/model/transformer.h"
#include "kernels/page_count.h"

namespace swaa {
namespace {

// Of a new process: code, libraries, tables. Kept free beside weights and pages.
constexpr int64_t kReserveBytes = int64_t{128} << 20;
// Logits are computed for at least this many rows at a time; a multiple of every block of rows.
constexpr int32_t kLogitsRows = 64;

double MiB(int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

// No exception of a library or of an allocation leaves a thread.
template <typename Function>
absl::Status Guarded(const Function& function) {
  try {
    return function();
  } catch (const std::bad_alloc& error) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the device ran out of memory: ", error.what()));
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("the device failed: ", error.what()));
  }
}

// With the values that suit the backend where none are given.
ModelDeviceOptions Resolve(ModelDeviceOptions options, std::string_view backend) {
  const bool cpu = backend == "cpu";
  if (options.kv_cache_bytes == 0 && cpu) options.kv_cache_bytes = int64_t{2} << 30;
  if (options.max_step_tokens == 0) options.max_step_tokens = cpu ? 512 : 8192;
  return options;
}

class ModelDevice : public Device {
 public:
  ModelDevice(const Checkpoint& checkpoint, const ModelDeviceOptions& options,
              std::unique_ptr<kernels::Operators> operators)
      : weights_(checkpoint.weights),
        config_(checkpoint.config),
        operators_(std::move(operators)),
        options_(Resolve(options, operators_->backend())) {}

  ~ModelDevice() override {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    submitted_changed_.notify_all();
    if (thread_.joinable()) thread_.join();
  }

  // Sizes all, starts the device thread, and waits until it has loaded the weights.
  absl::Status Start() {
    SWAA_RETURN_IF_ERROR(FillInfo());
    SWAA_RETURN_IF_ERROR(operators_->Supports(ShapeOf(config_)));
    SWAA_RETURN_IF_ERROR(CheckMemory());
    thread_ = std::thread([this] { Run(); });
    std::unique_lock lock(mutex_);
    launched_changed_.wait(lock, [this] { return loaded_; });
    return load_status_;
  }

  absl::StatusOr<ModelMemory> MeasureOnly() {
    SWAA_RETURN_IF_ERROR(FillInfo());
    SWAA_RETURN_IF_ERROR(operators_->Supports(ShapeOf(config_)));
    ModelMemory memory = Measure();
    if (options_.kv_cache_bytes == 0) {
      const int64_t rest = memory.available_bytes - memory.weight_bytes - memory.besides_bytes;
      SWAA_RETURN_IF_ERROR(SetPages(std::max(rest, LeastPoolBytes())));
      memory = Measure();
    }
    return memory;
  }

  const DeviceInfo& info() const override { return info_; }
  kernels::MemoryUse Memory() const override { return operators_->Memory(); }
  kernels::DeviceFacts Facts() const override { return operators_->Facts(); }

  absl::Status SupportsAdapters() const override { return operators_->SupportsLora(); }
  absl::StatusOr<std::shared_ptr<const DeviceAdapter>> LoadAdapter(
      const LoraCheckpoint& checkpoint) override {
    return AdapterWeights::Pack(operators_.get(), config_, checkpoint);
  }

  void Submit(Step step) override {
    {
      std::lock_guard lock(mutex_);
      ++uncollected_;
      SWAA_CHECK_LE(uncollected_, info_.max_steps_in_flight);
      submitted_.push_back(std::move(step));
    }
    submitted_changed_.notify_one();
  }

  StepResult Collect() override {
    Launched launched;
    {
      std::unique_lock lock(mutex_);
      SWAA_CHECK_GT(uncollected_, 0);
      launched_changed_.wait(lock, [this] { return !launched_.empty(); });
      launched = std::move(launched_.front());
      launched_.pop_front();
    }
    StepResult result{.id = launched.id, .status = std::move(launched.status)};
    if (launched.step != nullptr) {
      const absl::Status status = Guarded([&] {
        SWAA_ASSIGN_OR_RETURN(kernels::StepOutput output, operators_->Wait(launched.step));
        result.tokens = std::move(output.tokens);
        result.seconds = output.seconds;
        return absl::OkStatus();
      });
      if (!status.ok()) result.status = status;
    }
    // What a wrong step or a lack of memory spoils is the step; any other failure is the device's.
    result.device_lost =
        launched.device_failed || (launched.step != nullptr && !result.status.ok());
    if (!result.status.ok()) result.tokens.clear();
    std::lock_guard lock(mutex_);
    --uncollected_;
    return result;
  }

 private:
  // A step whose work is enqueued, or that failed before (step is null).
  struct Launched {
    uint64_t id = 0;
    kernels::StagedStep* step = nullptr;
    absl::Status status;
    bool device_failed = false;
  };

  absl::Status FillInfo() {
    if (options_.max_step_tokens < 1 || options_.num_slots < 1 || options_.max_context_tokens < 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "model device: max_step_tokens ", options_.max_step_tokens, " and num_slots ",
          options_.num_slots, " must be at least 1, max_context_tokens ",
          options_.max_context_tokens, " not negative"));
    }
    const int32_t context = options_.max_context_tokens > 0
                                ? std::min(options_.max_context_tokens, config_.max_context_tokens)
                                : config_.max_context_tokens;
    info_.backend = std::string(operators_->backend());
    info_.name = operators_->device_name();
    info_.num_layers = config_.num_layers;
    info_.page_bytes = operators_->KvPageBytes(config_.kv_heads, config_.head_dim);
    info_.num_slots = options_.num_slots;
    info_.max_pages_per_layer = static_cast<int32_t>(kernels::PageCount(context));
    info_.max_step_tokens = options_.max_step_tokens;
    info_.max_steps_in_flight = operators_->max_steps_in_flight();
    if (options_.kv_cache_bytes == 0) return absl::OkStatus();  // known when all else is there
    return SetPages(options_.kv_cache_bytes);
  }

  absl::Status SetPages(int64_t bytes) {
    const int64_t pages = bytes / info_.page_bytes;
    if (pages < config_.num_layers + 1) {
      return absl::InvalidArgumentError(absl::StrCat(
          "kv_cache_bytes: ", bytes, " holds ", std::max<int64_t>(pages, 0), " pages of ",
          info_.page_bytes, " bytes; this model needs at least ", LeastPoolBytes(),
          " bytes: a page for each of its ", config_.num_layers, " layers and the zero page"));
    }
    info_.num_pages =
        static_cast<int32_t>(std::min<int64_t>(pages, std::numeric_limits<int32_t>::max()));
    return absl::OkStatus();
  }

  int64_t LeastPoolBytes() const { return (config_.num_layers + 1) * info_.page_bytes; }

  Transformer::Capacity capacity() const {
    return {.step_rows = options_.max_step_tokens, .logits_rows = logits_rows()};
  }
  int32_t logits_rows() const {
    return (options_.num_slots + kLogitsRows - 1) / kLogitsRows * kLogitsRows;
  }

  kernels::StepCapacity step_capacity() const {
    return {.model = ShapeOf(config_),
            .num_pages = info_.num_pages,
            .num_slots = info_.num_slots,
            .max_pages_per_layer = info_.max_pages_per_layer,
            .max_rows = info_.max_step_tokens,
            .max_logits_rows = logits_rows(),
            .max_steps = info_.max_steps_in_flight};
  }

  // Before anything is loaded.
  ModelMemory Measure() const {
    const int64_t activations = Transformer::ActivationBytes(*operators_, config_, capacity());
    const int64_t pages = int64_t{info_.num_pages} * info_.page_bytes;
    const int64_t tables = operators_->StateBytes(step_capacity()) - pages;
    return {.device = info_,
            .weight_bytes = Transformer::MaxWeightBytes(*operators_, config_),
            .pool_bytes = std::max(pages, LeastPoolBytes()),
            .besides_bytes = activations + tables + kReserveBytes,
            .available_bytes = operators_->AvailableBytes()};
  }

  // Whether all of it will fit.
  absl::Status CheckMemory() const {
    const ModelMemory memory = Measure();
    const int64_t weights = memory.weight_bytes, pool = memory.pool_bytes;
    const int64_t besides = memory.besides_bytes, available = memory.available_bytes;
    const int64_t rest = available - weights - besides;
    if (rest >= pool) return absl::OkStatus();
    const std::string need =
        absl::StrCat("not enough memory: ", MiB(weights), " MiB of weights, ", MiB(pool),
                     " MiB of KV pages and ", MiB(besides), " MiB besides are needed, and ",
                     MiB(available), " MiB are available; ");
    if (rest < LeastPoolBytes()) {
      return absl::ResourceExhaustedError(
          absl::StrCat(need, "take a smaller model or a larger machine",
                       info_.backend == "cpu"
                           ? ""
                           : ", raise gpu_memory_utilization, or end what else uses the GPU"));
    }
    return absl::ResourceExhaustedError(
        absl::StrCat(need, "lower kv_cache_bytes to ", rest, " or less"));
  }

  // The device thread: loads, then launches steps until told to stop.
  void Run() {
    absl::Status status = Guarded([this] { return Load(); });
    {
      std::lock_guard lock(mutex_);
      load_status_ = status;
      loaded_ = true;
    }
    launched_changed_.notify_all();
    if (!status.ok()) return;
    for (;;) {
      std::unique_lock lock(mutex_);
      submitted_changed_.wait(lock, [this] { return stopping_ || !submitted_.empty(); });
      if (stopping_) break;
      const Step step = std::move(submitted_.front());
      submitted_.pop_front();
      lock.unlock();
      Launched launched = Launch(step);
      lock.lock();
      launched_.push_back(std::move(launched));
      lock.unlock();
      launched_changed_.notify_one();
    }
    transformer_.reset();  // in the thread that made it
  }

  absl::Status Load() {
    SWAA_ASSIGN_OR_RETURN(transformer_, Transformer::Load(operators_.get(), config_, *weights_,
                                                          capacity(), options_.on_progress));
    info_.weight_bytes = transformer_->weight_bytes();
    if (options_.kv_cache_bytes == 0) {
      const int64_t tables = operators_->StateBytes(step_capacity());  // of no pages yet
      SWAA_RETURN_IF_ERROR(SetPages(operators_->AvailableBytes() - tables));
    }
    SWAA_RETURN_IF_ERROR(operators_->PrepareSteps(step_capacity()));
    return operators_->WarmUp([this](kernels::StagedStep* step) { transformer_->Forward(step); });
  }

  Launched Launch(const Step& step) {
    Launched launched{.id = step.id};
    launched.status = CheckStep(step, info_, config_.vocab_size);
    if (!launched.status.ok()) return launched;
    launched.status = Guarded([&] {
      kernels::StagedStep* staged = operators_->Stage(step.input());
      std::vector<const AdapterWeights*> adapters;
      for (const auto& adapter : step.adapters) {
        adapters.push_back(static_cast<const AdapterWeights*>(adapter.get()));
      }
      operators_->Replay(staged, [&] { transformer_->Forward(staged, adapters); });
      operators_->Submit(staged);
      launched.step = staged;
      return absl::OkStatus();
    });
    launched.device_failed = absl::IsInternal(launched.status);
    return launched;
  }

  const std::shared_ptr<const WeightSource> weights_;
  const ModelConfig config_;
  const std::unique_ptr<kernels::Operators> operators_;
  const ModelDeviceOptions options_;
  DeviceInfo info_;
  std::unique_ptr<Transformer> transformer_;  // the device thread's

  std::mutex mutex_;
  std::condition_variable submitted_changed_;
  std::condition_variable launched_changed_;
  // Guarded by mutex_:
  std::deque<Step> submitted_;
  std::deque<Launched> launched_;
  int32_t uncollected_ = 0;
  bool stopping_ = false;
  bool loaded_ = false;
  absl::Status load_status_;

  std::thread thread_;
};

}  // namespace

absl::StatusOr<ModelMemory> MeasureModelMemory(const ModelConfig& config,
                                               const ModelDeviceOptions& options) {
  SWAA_ASSIGN_OR_RETURN(auto operators, kernels::CreateOperators(options.operators));
  return ModelDevice({.config = config}, options, std::move(operators)).MeasureOnly();
}

absl::StatusOr<std::unique_ptr<Device>> CreateModelDevice(const Checkpoint& checkpoint,
                                                          const ModelDeviceOptions& options) {
  SWAA_ASSIGN_OR_RETURN(auto operators, kernels::CreateOperators(options.operators));
  auto device = std::make_unique<ModelDevice>(checkpoint, options, std::move(operators));
  SWAA_RETURN_IF_ERROR(device->Start());
  return device;
}

}  // namespace swaa
