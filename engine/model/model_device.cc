// A Device that runs a checkpoint's transformer on a backend.

#include "engine/model/model_device.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "engine/model/score_rows.h"
#include "engine/model/step_check.h"
#include "engine/model/transformer.h"

namespace swaa {
namespace {

// Of a new process: code, libraries, tables. Kept free beside weights and pages.
constexpr int64_t kReserveBytes = int64_t{128} << 20;

double MiB(int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

class ModelDevice : public Device {
 public:
  ModelDevice(const Checkpoint& checkpoint, const ModelDeviceOptions& options,
              std::unique_ptr<kernels::Operators> operators)
      : weights_(checkpoint.weights),
        config_(checkpoint.config),
        options_(options),
        operators_(std::move(operators)) {}

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
    SWAA_RETURN_IF_ERROR(CheckMemory());
    SWAA_ASSIGN_OR_RETURN(pool_, operators_->Allocate(int64_t{info_.num_pages} * info_.page_bytes));
    SWAA_ASSIGN_OR_RETURN(page_table_,
                          operators_->Allocate(int64_t{4} * info_.num_slots * info_.num_layers *
                                               info_.max_pages_per_layer));
    thread_ = std::thread([this] { Run(); });
    std::unique_lock lock(mutex_);
    collected_changed_.wait(lock, [this] { return loaded_; });
    return load_status_;
  }

  const DeviceInfo& info() const override { return info_; }

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
    std::unique_lock lock(mutex_);
    SWAA_CHECK_GT(uncollected_, 0);
    collected_changed_.wait(lock, [this] { return !results_.empty(); });
    StepResult result = std::move(results_.front());
    results_.pop_front();
    --uncollected_;
    return result;
  }

 private:
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
    const int64_t pages = options_.kv_cache_bytes / info_.page_bytes;
    if (pages < config_.num_layers + 1) {
      return absl::InvalidArgumentError(absl::StrCat(
          "kv_cache_bytes: ", options_.kv_cache_bytes, " holds ", std::max<int64_t>(pages, 0),
          " pages of ", info_.page_bytes, " bytes; this model needs at least ",
          (config_.num_layers + 1) * info_.page_bytes, " bytes: a page for each of its ",
          config_.num_layers, " layers and the zero page"));
    }
    info_.num_pages =
        static_cast<int32_t>(std::min<int64_t>(pages, std::numeric_limits<int32_t>::max()));
    info_.num_slots = options_.num_slots;
    info_.max_pages_per_layer = (context + kernels::kPageTokens - 1) / kernels::kPageTokens;
    info_.max_step_tokens = options_.max_step_tokens;
    info_.max_steps_in_flight = 1;
    return absl::OkStatus();
  }

  absl::Status CheckMemory() const {
    const int64_t weights = EstimateWeightBytes(config_, operators_->precision().weights);
    const int64_t activations = EstimateActivationBytes(config_, options_.max_step_tokens);
    const int64_t pool = int64_t{info_.num_pages} * info_.page_bytes;
    const int64_t available = operators_->AvailableBytes();
    const int64_t rest = available - weights - activations - kReserveBytes;
    if (rest >= pool) return absl::OkStatus();
    const std::string need =
        absl::StrCat("not enough memory: ", MiB(weights), " MiB of weights, ", MiB(pool),
                     " MiB of KV pages and ", MiB(activations + kReserveBytes),
                     " MiB besides are needed, and ", MiB(available), " MiB are available; ");
    const int64_t least = (config_.num_layers + 1) * info_.page_bytes;
    if (rest < least) {
      return absl::ResourceExhaustedError(
          absl::StrCat(need, "take a smaller model or a larger machine"));
    }
    return absl::ResourceExhaustedError(
        absl::StrCat(need, "lower kv_cache_bytes to ", rest, " or less"));
  }

  // The device thread: loads, then computes steps until told to stop.
  void Run() {
    absl::Status status = Guarded([this] { return Load(); });
    {
      std::lock_guard lock(mutex_);
      load_status_ = status;
      loaded_ = true;
    }
    collected_changed_.notify_all();
    if (!status.ok()) return;
    for (;;) {
      std::unique_lock lock(mutex_);
      submitted_changed_.wait(lock, [this] { return stopping_ || !submitted_.empty(); });
      if (stopping_) break;
      const Step step = std::move(submitted_.front());
      submitted_.pop_front();
      lock.unlock();
      StepResult result = Compute(step);
      lock.lock();
      results_.push_back(std::move(result));
      lock.unlock();
      collected_changed_.notify_one();
    }
    transformer_.reset();  // in the thread that made it
  }

  absl::Status Load() {
    SWAA_ASSIGN_OR_RETURN(transformer_,
                          Transformer::Load(operators_.get(), config_, *weights_,
                                            options_.max_step_tokens, options_.on_progress));
    info_.weight_bytes = transformer_->weight_bytes();
    return absl::OkStatus();
  }

  StepResult Compute(const Step& step) {
    const auto begin = std::chrono::steady_clock::now();
    StepResult result;
    result.id = step.id;
    result.status = Guarded([&] { return ComputeTokens(step, &result.tokens); });
    if (!result.status.ok()) result.tokens.clear();
    result.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return result;
  }

  absl::Status ComputeTokens(const Step& step, std::vector<ScoredToken>* tokens) {
    SWAA_RETURN_IF_ERROR(CheckStep(step, info_, config_.vocab_size));
    auto* entries = reinterpret_cast<int32_t*>(page_table_->data());
    for (const PageTableUpdate& update : step.page_table_updates) {
      const int64_t row = int64_t{update.slot} * info_.num_layers + update.layer;
      entries[row * info_.max_pages_per_layer + update.block] = update.page;
    }
    const kernels::PageTableView table{entries, info_.num_layers, info_.max_pages_per_layer};
    SWAA_RETURN_IF_ERROR(CheckWrittenPages(step, table));
    tokens->resize(step.logits.size());
    transformer_->Forward(step, table, {pool_->data(), info_.page_bytes},
                          [&](int64_t first, int64_t count, const float* logits) {
                            ScoreRows(std::span(step.logits).subspan(first, count), logits,
                                      config_.vocab_size, std::span(*tokens).subspan(first, count));
                          });
    return absl::OkStatus();
  }

  // Every position that the step computes must have pages: the zero page is never written.
  absl::Status CheckWrittenPages(const Step& step, const kernels::PageTableView& table) const {
    for (const kernels::SequenceRows& sequence : step.sequences) {
      const int32_t last = sequence.first_position + sequence.query_count - 1;
      for (int32_t layer = 0; layer < info_.num_layers; ++layer) {
        const int32_t* pages = table.Pages(sequence.slot, layer);
        for (int32_t block = sequence.first_position / kernels::kPageTokens;
             block <= last / kernels::kPageTokens; ++block) {
          if (pages[block] != kernels::kZeroPage) continue;
          return absl::InternalError(absl::StrCat("slot ", sequence.slot, ", layer ", layer,
                                                  ", block ", block,
                                                  " is written by the step but has no page"));
        }
      }
    }
    return absl::OkStatus();
  }

  // No exception of a library or of an allocation leaves the device thread.
  template <typename Function>
  static absl::Status Guarded(const Function& function) {
    try {
      return function();
    } catch (const std::bad_alloc&) {
      return absl::ResourceExhaustedError("the device ran out of memory");
    } catch (const std::exception& error) {
      return absl::InternalError(absl::StrCat("the device failed: ", error.what()));
    }
  }

  const std::shared_ptr<const WeightSource> weights_;
  const ModelConfig config_;
  const ModelDeviceOptions options_;
  const std::unique_ptr<kernels::Operators> operators_;
  DeviceInfo info_;
  std::unique_ptr<kernels::Buffer> pool_;
  std::unique_ptr<kernels::Buffer> page_table_;
  std::unique_ptr<Transformer> transformer_;  // the device thread's

  std::mutex mutex_;
  std::condition_variable submitted_changed_;
  std::condition_variable collected_changed_;
  // Guarded by mutex_:
  std::deque<Step> submitted_;
  std::deque<StepResult> results_;
  int32_t uncollected_ = 0;
  bool stopping_ = false;
  bool loaded_ = false;
  absl::Status load_status_;

  std::thread thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> CreateModelDevice(const Checkpoint& checkpoint,
                                                          const ModelDeviceOptions& options) {
  SWAA_ASSIGN_OR_RETURN(auto operators, kernels::CreateOperators(options.operators));
  auto device = std::make_unique<ModelDevice>(checkpoint, options, std::move(operators));
  SWAA_RETURN_IF_ERROR(device->Start());
  return device;
}

}  // namespace swaa
