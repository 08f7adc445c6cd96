// Device memory and page-locked host memory.

#include "kernels/cuda/device_memory.h"

#include <algorithm>
#include <cuda_runtime_api.h>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda/cuda_check.h"

namespace swaa::kernels::cuda {
namespace {

constexpr int64_t kAlignment = 256;
constexpr int64_t kBlockBytes = int64_t{256} << 20;
// As much has a block to itself: what is left of a shared one where it does not fit any more is
// lost, which was a third of the weights of a model whose matrices are a little over half a block.
constexpr int64_t kOwnBlockBytes = int64_t{16} << 20;

int64_t Aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

DeviceArena::~DeviceArena() {
  for (void* block : blocks_) cudaFree(block);
}

int64_t DeviceArena::AvailableBytes() const {
  size_t free = 0, total = 0;
  if (cudaMemGetInfo(&free, &total) != cudaSuccess) return 0;
  const auto allowed = static_cast<int64_t>(utilization_ * static_cast<double>(total));
  return allowed - static_cast<int64_t>(total - free) + left_;
}

absl::StatusOr<std::byte*> DeviceArena::Allocate(int64_t bytes, const char* what, MemoryKind kind) {
  const int64_t wanted = Aligned(std::max<int64_t>(bytes, 1));
  if (wanted > left_) {
    const int64_t shared_bytes =
        wanted < kOwnBlockBytes ? std::min(kBlockBytes, AvailableBytes() - left_) : 0;
    const int64_t block_bytes = std::max(wanted, shared_bytes);
    void* block = nullptr;
    SWAA_RETURN_IF_ERROR(
        CudaStatus(cudaMalloc(&block, block_bytes),
                   absl::StrCat(block_bytes, " bytes of device memory for ", what)));
    blocks_.push_back(block);
    SWAA_RETURN_IF_ERROR(CudaStatus(cudaMemset(block, 0, block_bytes), what));
    // The host does not wait for a memset, and neither do the streams that fill and use the memory.
    SWAA_RETURN_IF_ERROR(CudaStatus(cudaStreamSynchronize(nullptr), what));
    if (wanted == block_bytes) {
      counter_.Add(kind, wanted);
      return static_cast<std::byte*>(block);
    }
    next_ = static_cast<std::byte*>(block);
    left_ = block_bytes;
  }
  std::byte* memory = next_;
  next_ += wanted;
  left_ -= wanted;
  counter_.Add(kind, wanted);
  return memory;
}

absl::StatusOr<PinnedMemory> PinnedMemory::Allocate(int64_t bytes) {
  PinnedMemory memory;
  void* data = nullptr;
  SWAA_RETURN_IF_ERROR(CudaStatus(cudaMallocHost(&data, bytes),
                                  absl::StrCat(bytes, " bytes of page-locked memory")));
  memory.data_ = static_cast<std::byte*>(data);
  memory.bytes_ = bytes;
  return memory;
}

PinnedMemory::PinnedMemory(PinnedMemory&& other) noexcept { *this = std::move(other); }

PinnedMemory& PinnedMemory::operator=(PinnedMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

PinnedMemory::~PinnedMemory() {
  if (data_ != nullptr) cudaFreeHost(data_);
}

}  // namespace swaa::kernels::cuda
