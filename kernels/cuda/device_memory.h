// Device memory: one arena, taken from the driver in large pieces; and page-locked host memory.

#ifndef SWAA_KERNELS_CUDA_DEVICE_MEMORY_H_
#define SWAA_KERNELS_CUDA_DEVICE_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/device_state.h"
#include "kernels/operators.h"

namespace swaa::kernels::cuda {

// Hands out zeroed memory, aligned to 256 bytes, that lives as long as the arena. One thread at a
// time, whose current device it belongs to.
class DeviceArena {
 public:
  // utilization: the share of the card that may be in use, by whomever.
  explicit DeviceArena(double utilization) : utilization_(utilization) {}
  ~DeviceArena();
  DeviceArena(const DeviceArena&) = delete;
  DeviceArena& operator=(const DeviceArena&) = delete;

  // Counted as `kind`. RESOURCE_EXHAUSTED, naming `what`, if the card has not so much.
  absl::StatusOr<std::byte*> Allocate(int64_t bytes, const char* what,
                                      MemoryKind kind = MemoryKind::kWorkspace);

  // What may still be allocated.
  int64_t AvailableBytes() const;

  // What was allocated, beside `free` bytes. From any thread.
  MemoryUse Use(int64_t free) const { return counter_.Use(free); }

 private:
  const double utilization_;
  MemoryCounter counter_;
  std::vector<void*> blocks_;
  std::byte* next_ = nullptr;  // in the newest block
  int64_t left_ = 0;
};

// A buffer in the arena; its memory stays the arena's.
class DeviceBuffer : public Buffer {
 public:
  DeviceBuffer(std::byte* data, int64_t bytes) : data_(data), bytes_(bytes) {}
  std::byte* data() const override { return data_; }
  int64_t bytes() const override { return bytes_; }

 private:
  std::byte* data_;
  int64_t bytes_;
};

// Page-locked host memory, freed with the object.
class PinnedMemory {
 public:
  static absl::StatusOr<PinnedMemory> Allocate(int64_t bytes);
  PinnedMemory() = default;
  PinnedMemory(PinnedMemory&& other) noexcept;
  PinnedMemory& operator=(PinnedMemory&& other) noexcept;
  ~PinnedMemory();

  std::byte* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  std::byte* data_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_DEVICE_MEMORY_H_
