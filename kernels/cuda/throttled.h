// A reading that disturbs the device, taken no oftener than its period.

#ifndef SWAA_KERNELS_CUDA_THROTTLED_H_
#define SWAA_KERNELS_CUDA_THROTTLED_H_

#include <chrono>
#include <functional>
#include <mutex>
#include <optional>
#include <utility>

namespace swaa::kernels::cuda {

// Thread-safe: who comes while another reads waits for that reading.
template <typename T>
class Throttled {
 public:
  Throttled(std::chrono::steady_clock::duration period, std::function<T()> read)
      : period_(period), read_(std::move(read)) {}

  // Of the last period.
  T Get() const {
    std::lock_guard lock(mutex_);
    const auto now = std::chrono::steady_clock::now();
    if (!value_.has_value() || now - read_at_ >= period_) {
      value_ = read_();
      read_at_ = now;
    }
    return *value_;
  }

 private:
  const std::chrono::steady_clock::duration period_;
  const std::function<T()> read_;
  mutable std::mutex mutex_;
  // Guarded by mutex_:
  mutable std::optional<T> value_;
  mutable std::chrono::steady_clock::time_point read_at_;
};

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_THROTTLED_H_
