// Several devices that compute one model together, as one.

#include "engine/model/tensor_parallel_device.h"

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace swaa {
namespace {

// An adapter's parts, by rank.
class SharedAdapter : public DeviceAdapter {
 public:
  explicit SharedAdapter(std::vector<std::shared_ptr<const DeviceAdapter>> parts)
      : parts_(std::move(parts)) {}
  int64_t bytes() const override {
    int64_t bytes = 0;
    for (const auto& part : parts_) bytes += part->bytes();
    return bytes;
  }
  const std::shared_ptr<const DeviceAdapter>& part(size_t rank) const { return parts_[rank]; }

 private:
  const std::vector<std::shared_ptr<const DeviceAdapter>> parts_;
};

// Collects a rank's steps in a thread of its own: a rank that fails is noticed, and the others
// told, while somebody still waits for one of these.
class Collector {
 public:
  explicit Collector(Device* device) : device_(device) {
    results_.reserve(device->info().max_steps_in_flight);
    thread_ = std::thread([this] { Run(); });
  }

  ~Collector() {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  void Expect() {
    {
      std::lock_guard lock(mutex_);
      ++expected_;
    }
    changed_.notify_all();
  }

  StepResult Take() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !results_.empty(); });
    StepResult result = std::move(results_.front());
    results_.erase(results_.begin());
    return result;
  }

 private:
  // What is expected is collected even when nobody will take it.
  void Run() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return stopping_ || expected_ > 0; });
      if (expected_ == 0) return;
      --expected_;
      lock.unlock();
      StepResult result = device_->Collect();
      lock.lock();
      results_.push_back(std::move(result));
      changed_.notify_all();
    }
  }

  Device* const device_;
  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_:
  int32_t expected_ = 0;
  std::vector<StepResult> results_;  // has room for all steps in flight
  bool stopping_ = false;
  std::thread thread_;
};

class TensorParallelDevice : public Device {
 public:
  TensorParallelDevice(std::vector<std::unique_ptr<Device>> ranks,
                       std::function<void(const absl::Status&)> abort)
      : ranks_(std::move(ranks)),
        abort_(std::move(abort)),
        info_(OfAllRanks(ranks_[0]->info(), static_cast<int32_t>(ranks_.size()))) {
    info_.weight_bytes = 0;
    for (const auto& rank : ranks_) info_.weight_bytes += rank->info().weight_bytes;
    for (size_t rank = 1; rank < ranks_.size(); ++rank) {
      collectors_.push_back(std::make_unique<Collector>(ranks_[rank].get()));
    }
  }

  ~TensorParallelDevice() override {
    // Steps that nobody collected are not computed to the end: ranks would wait for one that has
    // stopped.
    abort_(absl::CancelledError("the device is being freed"));
    collectors_.clear();
  }

  const DeviceInfo& info() const override { return info_; }
  kernels::MemoryUse Memory(int32_t rank) const override { return ranks_[rank]->Memory(0); }
  kernels::DeviceFacts Facts(int32_t rank) const override { return ranks_[rank]->Facts(0); }

  absl::Status SupportsAdapters() const override { return ranks_[0]->SupportsAdapters(); }
  absl::StatusOr<std::shared_ptr<const DeviceAdapter>> LoadAdapter(
      const LoraCheckpoint& checkpoint) override {
    std::vector<std::shared_ptr<const DeviceAdapter>> parts;
    for (const auto& rank : ranks_) {
      SWAA_ASSIGN_OR_RETURN(auto part, rank->LoadAdapter(checkpoint));
      parts.push_back(std::move(part));
    }
    return std::make_shared<SharedAdapter>(std::move(parts));
  }

  void Submit(Step step) override {
    const std::vector<std::shared_ptr<const DeviceAdapter>> adapters = std::move(step.adapters);
    for (size_t rank = 0; rank < ranks_.size(); ++rank) {
      Step its = step;
      its.adapters.clear();
      for (const auto& adapter : adapters) {
        its.adapters.push_back(static_cast<const SharedAdapter&>(*adapter).part(rank));
      }
      ranks_[rank]->Submit(std::move(its));
      if (rank > 0) collectors_[rank - 1]->Expect();
    }
  }

  StepResult Collect() override {
    StepResult result = ranks_[0]->Collect();
    for (auto& collector : collectors_) {
      StepResult other = collector->Take();
      result.device_lost |= other.device_lost;
      if (result.status.ok() && !other.status.ok()) {
        result.status = std::move(other.status);
        result.tokens.clear();
      }
    }
    return result;
  }

 private:
  const std::vector<std::unique_ptr<Device>> ranks_;
  const std::function<void(const absl::Status&)> abort_;
  DeviceInfo info_;
  std::vector<std::unique_ptr<Collector>> collectors_;  // of ranks 1 and up
};

}  // namespace

DeviceInfo OfAllRanks(const DeviceInfo& rank, int32_t ranks) {
  DeviceInfo info = rank;
  info.ranks = ranks;
  info.name = absl::StrCat(ranks, " ranks of ", rank.name);
  info.page_bytes *= ranks;
  return info;
}

std::unique_ptr<Device> MakeTensorParallelDevice(std::vector<std::unique_ptr<Device>> ranks,
                                                 std::function<void(const absl::Status&)> abort) {
  return std::make_unique<TensorParallelDevice>(std::move(ranks), std::move(abort));
}

}  // namespace swaa
