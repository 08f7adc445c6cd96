// Device memory of adapters, which come and go while steps run: neither taking nor giving it back
// waits for the device.

#ifndef SWAA_KERNELS_CUDA_LORA_ADAPTER_MEMORY_H_
#define SWAA_KERNELS_CUDA_LORA_ADAPTER_MEMORY_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cuda_runtime_api.h>
#include <memory>
#include <mutex>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace swaa::kernels::cuda {

// A pool that keeps what was given back for the next adapter. Thread-safe; outlives its blocks.
class AdapterMemory {
 public:
  explicit AdapterMemory(int ordinal) : ordinal_(ordinal) {}
  ~AdapterMemory();
  AdapterMemory(const AdapterMemory&) = delete;
  AdapterMemory& operator=(const AdapterMemory&) = delete;

  // Device memory, aligned to 256. No step reads it any more when it is freed. RESOURCE_EXHAUSTED
  // where the card has not so much left.
  absl::StatusOr<std::shared_ptr<std::byte>> Allocate(int64_t bytes);
  // Copies into such a block; done on return.
  absl::Status Upload(std::span<const std::byte> bytes, std::byte* device);

  // Of all blocks that are in use.
  int64_t bytes() const { return bytes_; }

 private:
  absl::Status Open();
  absl::Status CheckRoom(int64_t bytes) const;
  void Free(std::byte* data, int64_t bytes);

  const int ordinal_;
  std::atomic<int64_t> bytes_ = 0;
  std::mutex mutex_;
  // Guarded by mutex_; made by the first Allocate.
  cudaMemPool_t pool_ = nullptr;
  cudaStream_t stream_ = nullptr;
};

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_LORA_ADAPTER_MEMORY_H_
