// Device memory of adapters.

#include "kernels/cuda/lora/adapter_memory.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda/cuda_check.h"

namespace swaa::kernels::cuda {
namespace {

// Stays free beside adapters: draws may need memory while steps run.
constexpr int64_t kReserveBytes = int64_t{128} << 20;

}  // namespace

AdapterMemory::~AdapterMemory() {
  cudaSetDevice(ordinal_);
  if (stream_ != nullptr) {
    cudaStreamSynchronize(stream_);
    cudaStreamDestroy(stream_);
  }
  if (pool_ != nullptr) cudaMemPoolDestroy(pool_);
}

absl::Status AdapterMemory::Open() {
  if (pool_ != nullptr) return absl::OkStatus();
  SWAA_RETURN_IF_ERROR(
      CudaStatus(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "a stream"));
  cudaMemPoolProps properties = {};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location = {cudaMemLocationTypeDevice, ordinal_};
  SWAA_RETURN_IF_ERROR(
      CudaStatus(cudaMemPoolCreate(&pool_, &properties), "a memory pool of adapters"));
  uint64_t kept = std::numeric_limits<uint64_t>::max();
  return CudaStatus(cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrReleaseThreshold, &kept),
                    "a memory pool of adapters");
}

absl::Status AdapterMemory::CheckRoom(int64_t bytes) const {
  size_t free = 0, total = 0;
  uint64_t reserved = 0, used = 0;
  SWAA_RETURN_IF_ERROR(CudaStatus(cudaMemGetInfo(&free, &total), "free device memory"));
  SWAA_RETURN_IF_ERROR(
      CudaStatus(cudaMemPoolGetAttribute(pool_, cudaMemPoolAttrReservedMemCurrent, &reserved),
                 "a memory pool of adapters"));
  SWAA_RETURN_IF_ERROR(
      CudaStatus(cudaMemPoolGetAttribute(pool_, cudaMemPoolAttrUsedMemCurrent, &used),
                 "a memory pool of adapters"));
  const int64_t left = static_cast<int64_t>(free + reserved - used) - kReserveBytes;
  if (bytes <= left) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "adapter: ", bytes, " bytes of weights, and the GPU has ", std::max<int64_t>(0, left),
      " left; unload another adapter, or lower gpu_memory_utilization or kv_cache_bytes"));
}

absl::StatusOr<std::shared_ptr<std::byte>> AdapterMemory::Allocate(int64_t bytes) {
  std::lock_guard lock(mutex_);
  SWAA_RETURN_IF_ERROR(CudaStatus(cudaSetDevice(ordinal_), "the GPU of an adapter"));
  SWAA_RETURN_IF_ERROR(Open());
  SWAA_RETURN_IF_ERROR(CheckRoom(bytes));
  void* data = nullptr;
  SWAA_RETURN_IF_ERROR(CudaStatus(cudaMallocFromPoolAsync(&data, bytes, pool_, stream_),
                                  absl::StrCat(bytes, " bytes of device memory for an adapter")));
  bytes_ += bytes;
  return std::shared_ptr<std::byte>(static_cast<std::byte*>(data),
                                    [this, bytes](std::byte* block) { Free(block, bytes); });
}

absl::Status AdapterMemory::Upload(std::span<const std::byte> bytes, std::byte* device) {
  std::lock_guard lock(mutex_);
  SWAA_RETURN_IF_ERROR(CudaStatus(cudaSetDevice(ordinal_), "the GPU of an adapter"));
  SWAA_RETURN_IF_ERROR(CudaStatus(
      cudaMemcpyAsync(device, bytes.data(), bytes.size(), cudaMemcpyHostToDevice, stream_),
      "an adapter"));
  return CudaStatus(cudaStreamSynchronize(stream_), "an adapter");
}

void AdapterMemory::Free(std::byte* data, int64_t bytes) {
  std::lock_guard lock(mutex_);
  bytes_ -= bytes;
  cudaSetDevice(ordinal_);
  cudaFreeAsync(data, stream_);
}

}  // namespace swaa::kernels::cuda
