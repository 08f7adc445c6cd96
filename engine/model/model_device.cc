// A Device that runs a checkpoint's transformer on a backend.

#include "engine/model/model_device.h"

#include <condition_variable>
#include <exception>
#include <functional>
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
#include "engine/model/adapter_weights.h"
#include "engine/model/device_sizes.h"
#include "engine/model/rank_slices.h"
#include "engine/model/step_check.h"
#include "engine/model/tensor_parallel_device.h"
#include "engine/model/transformer.h"

namespace swaa {
namespace {

// What an exception says, where there is the memory to say it.
absl::Status Failure(absl::StatusCode code, const char* what, const std::exception& error) {
  try {
    return absl::Status(code, absl::StrCat(what, error.what()));
  } catch (const std::bad_alloc&) {
    return absl::Status(code, "");
  }
}

// No exception of a library or of an allocation leaves a thread.
template <typename Function>
absl::Status Guarded(const Function& function) {
  try {
    return function();
  } catch (const std::bad_alloc& error) {
    return Failure(absl::StatusCode::kResourceExhausted, "the device ran out of memory: ", error);
  } catch (const std::exception& error) {
    return Failure(absl::StatusCode::kInternal, "the device failed: ", error);
  }
}

// Takes the first; there are as few as steps in flight.
template <typename T>
T TakeFirst(std::vector<T>* values) {
  T first = std::move(values->front());
  values->erase(values->begin());
  return first;
}

class ModelDevice : public Device {
 public:
  ModelDevice(const Checkpoint& checkpoint, const ModelDeviceOptions& options,
              std::unique_ptr<kernels::Operators> operators)
      : weights_(checkpoint.weights),
        config_(checkpoint.config),
        operators_(std::move(operators)),
        on_progress_(options.on_progress),
        sizes_(operators_.get(), &config_, options) {}

  ~ModelDevice() override {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    submitted_changed_.notify_all();
    if (thread_.joinable()) thread_.join();
  }

  // Sizes all, starts the device thread, and waits until it has loaded the weights. Ranks that
  // share a model must be started at the same time: they wait for each other.
  absl::Status Start() {
    SWAA_RETURN_IF_ERROR(Agree(Guarded([this] { return sizes_.Check(); })));
    info_ = sizes_.info();
    submitted_.reserve(info_.max_steps_in_flight);
    launched_.reserve(info_.max_steps_in_flight);
    thread_ = std::thread([this] { Run(); });
    std::unique_lock lock(mutex_);
    launched_changed_.wait(lock, [this] { return loaded_; });
    return load_status_;
  }

  const DeviceInfo& info() const override { return info_; }
  kernels::MemoryUse Memory(int32_t rank) const override { return operators_->Memory(); }
  kernels::DeviceFacts Facts(int32_t rank) const override { return operators_->Facts(); }

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
      launched = TakeFirst(&launched_);
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
    if (result.device_lost) GiveUp(result.status);
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

  // Of all ranks: OK if all are.
  absl::Status Agree(const absl::Status& status) {
    if (operators_->communicator() == nullptr) return status;
    return operators_->communicator()
        ->Agree(status.ok() ? absl::StatusOr<int64_t>(0) : status)
        .status();
  }
  // No rank is to wait for this one any more.
  void GiveUp(const absl::Status& why) {
    if (operators_->communicator() != nullptr) operators_->communicator()->Abort(why);
  }

  // The device thread: loads, then launches steps until told to stop.
  void Run() {
    absl::Status status = Guarded([this] { return Load(); });
    if (!status.ok()) GiveUp(status);
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
      const Step step = TakeFirst(&submitted_);
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
    SWAA_RETURN_IF_ERROR(Agree(Guarded([this] { return LoadWeights(); })));
    if (sizes_.pool_takes_the_rest()) {
      SWAA_ASSIGN_OR_RETURN(const int64_t bytes, LeastOf(sizes_.RestBytes()));
      SWAA_RETURN_IF_ERROR(sizes_.SetPages(bytes));
      info_.num_pages = sizes_.info().num_pages;
    }
    SWAA_RETURN_IF_ERROR(
        Agree(Guarded([this] { return operators_->PrepareSteps(sizes_.step_capacity()); })));
    return Guarded([this] {
      return operators_->WarmUp([this](kernels::StagedStep* step) { transformer_->Forward(step); });
    });
  }

  absl::Status LoadWeights() {
    SWAA_ASSIGN_OR_RETURN(transformer_,
                          Transformer::Load(operators_.get(), config_, *weights_,
                                            sizes_.transformer_capacity(), on_progress_));
    info_.weight_bytes = transformer_->weight_bytes();
    return absl::OkStatus();
  }

  // Of all ranks' values.
  absl::StatusOr<int64_t> LeastOf(int64_t mine) {
    if (operators_->communicator() == nullptr) return mine;
    return operators_->communicator()->Agree(mine);
  }

  Launched Launch(const Step& step) {
    Launched launched{.id = step.id};
    launched.status = CheckStep(step, info_, config_.vocab_size);
    if (!launched.status.ok()) return launched;
    // Read until the step is submitted.
    std::vector<std::span<const kernels::LoraWeight* const>> adapters;
    kernels::StagedStep* staged = nullptr;
    const absl::Status mine = Guarded([&] {
      for (const auto& adapter : step.adapters) {
        adapters.push_back(static_cast<const AdapterWeights&>(*adapter).weights());
      }
      kernels::StepInput input = step.input();
      input.adapters = adapters;
      staged = operators_->Stage(input);
      return absl::OkStatus();
    });
    // All ranks or none: one that went on alone would wait for the others for ever.
    launched.status = Agree(mine);
    if (launched.status.ok()) {
      launched.status = Guarded([&] { return Enqueue(staged); });
      if (launched.status.ok()) {
        launched.step = staged;
        return launched;
      }
      GiveUp(launched.status);
      launched.device_failed = operators_->communicator() != nullptr;
    } else if (staged != nullptr) {
      operators_->Discard(staged);
    }
    launched.device_failed |= absl::IsInternal(launched.status);
    return launched;
  }

  absl::Status Enqueue(kernels::StagedStep* staged) {
    operators_->Replay(staged, [&] { transformer_->Forward(staged); });
    operators_->Submit(staged);
    return absl::OkStatus();
  }

  const std::shared_ptr<const WeightSource> weights_;
  const ModelConfig config_;
  const std::unique_ptr<kernels::Operators> operators_;
  const std::function<void(double)> on_progress_;
  DeviceSizes sizes_;
  DeviceInfo info_;                           // of this rank
  std::unique_ptr<Transformer> transformer_;  // the device thread's

  std::mutex mutex_;
  std::condition_variable submitted_changed_;
  std::condition_variable launched_changed_;
  // Guarded by mutex_:
  std::vector<Step> submitted_;  // these two have room for all steps in flight
  std::vector<Launched> launched_;
  int32_t uncollected_ = 0;
  bool stopping_ = false;
  bool loaded_ = false;
  absl::Status load_status_;

  std::thread thread_;
};

absl::StatusOr<std::unique_ptr<Device>> StartRanks(
    const Checkpoint& checkpoint, const ModelDeviceOptions& options,
    std::vector<std::unique_ptr<kernels::Operators>> operators) {
  kernels::Communicator* const communicator = operators[0]->communicator();
  std::vector<std::unique_ptr<Device>> ranks;
  std::vector<absl::Status> started(operators.size());
  {
    std::vector<std::jthread> threads;
    for (size_t rank = 0; rank < operators.size(); ++rank) {
      ModelDeviceOptions its = options;
      if (rank > 0) its.on_progress = nullptr;  // that of one is that of all
      auto device = std::make_unique<ModelDevice>(checkpoint, its, std::move(operators[rank]));
      threads.emplace_back(
          [device = device.get(), &status = started[rank]] { status = device->Start(); });
      ranks.push_back(std::move(device));
    }
  }
  for (const absl::Status& status : started) SWAA_RETURN_IF_ERROR(status);
  return MakeTensorParallelDevice(
      std::move(ranks), [communicator](const absl::Status& why) { communicator->Abort(why); });
}

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> CreateModelDevice(const Checkpoint& checkpoint,
                                                          const ModelDeviceOptions& options) {
  SWAA_RETURN_IF_ERROR(CheckRanks(checkpoint.config, options.ranks));
  if (options.ranks == 1) {
    SWAA_ASSIGN_OR_RETURN(auto operators, kernels::CreateOperators(options.operators));
    auto device = std::make_unique<ModelDevice>(checkpoint, options, std::move(operators));
    SWAA_RETURN_IF_ERROR(device->Start());
    return device;
  }
  SWAA_ASSIGN_OR_RETURN(auto operators, kernels::CreateRanks(options.operators, options.ranks));
  return StartRanks(checkpoint, options, std::move(operators));
}

}  // namespace swaa
