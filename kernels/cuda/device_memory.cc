// Device memory, and how it is filled from the host.

#include "kernels/cuda/device_memory.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <cuda_runtime_api.h>
#include <mutex>
#include <thread>
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
constexpr int64_t kUploadElements = int64_t{2} << 20;  // of a piece of a matrix
constexpr unsigned kMaxUploadThreads = 16;

int64_t Aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// One thread's way of bringing rows to the device: a piece is read and rounded while the one before
// it is copied.
class Uploader {
 public:
  absl::Status Open() {
    SWAA_RETURN_IF_ERROR(CudaStatus(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking),
                                    "a stream for loading"));
    for (int i = 0; i < 2; ++i) {
      SWAA_ASSIGN_OR_RETURN(pinned_[i], PinnedMemory::Allocate(2 * kUploadElements));
      SWAA_RETURN_IF_ERROR(CudaStatus(cudaEventCreateWithFlags(&copied_[i], cudaEventDisableTiming),
                                      "an event for loading"));
    }
    return absl::OkStatus();
  }
  ~Uploader() {
    if (stream_ != nullptr) cudaStreamSynchronize(stream_);
    for (cudaEvent_t event : copied_) {
      if (event != nullptr) cudaEventDestroy(event);
    }
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }

  // Rows first_row .. first_row + count - 1 into the matrix that begins at `matrix`.
  absl::Status Upload(const HostRows& rows, int64_t first_row, int64_t count, int64_t columns,
                      std::byte* matrix) {
    SWAA_RETURN_IF_ERROR(CudaStatus(cudaEventSynchronize(copied_[turn_]), "loading"));
    std::byte* piece = pinned_[turn_].data();
    const int64_t at = 2 * first_row * columns, bytes = 2 * count * columns;
    if (rows.bf16 != nullptr) {
      std::memcpy(piece, rows.bf16 + at, bytes);
    } else {
      values_.resize(count * columns);
      rows.read(first_row, count, values_.data());
      std::transform(values_.begin(), values_.end(), reinterpret_cast<Bf16*>(piece), ToBf16);
    }
    SWAA_RETURN_IF_ERROR(CudaStatus(
        cudaMemcpyAsync(matrix + at, piece, bytes, cudaMemcpyHostToDevice, stream_), "loading"));
    SWAA_RETURN_IF_ERROR(CudaStatus(cudaEventRecord(copied_[turn_], stream_), "loading"));
    turn_ = 1 - turn_;
    return absl::OkStatus();
  }

  absl::Status Finish() { return CudaStatus(cudaStreamSynchronize(stream_), "loading"); }

 private:
  cudaStream_t stream_ = nullptr;
  PinnedMemory pinned_[2];
  cudaEvent_t copied_[2] = {};
  std::vector<float> values_;
  int turn_ = 0;
};

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

absl::Status UploadAsBf16(const HostRows& rows, int64_t columns, std::byte* device) {
  const int64_t piece_rows = std::max<int64_t>(1, kUploadElements / columns);
  const int64_t pieces = (rows.count + piece_rows - 1) / piece_rows;
  int ordinal = 0;
  SWAA_RETURN_IF_ERROR(CudaStatus(cudaGetDevice(&ordinal), "loading"));
  std::atomic<int64_t> next = 0;
  std::mutex mutex;
  absl::Status status;  // guarded by mutex
  const auto upload = [&] {
    absl::Status mine = CudaStatus(cudaSetDevice(ordinal), "loading");
    Uploader uploader;
    if (mine.ok()) mine = uploader.Open();
    for (int64_t piece = next++; mine.ok() && piece < pieces; piece = next++) {
      const int64_t first = piece * piece_rows;
      mine =
          uploader.Upload(rows, first, std::min(piece_rows, rows.count - first), columns, device);
    }
    if (mine.ok()) mine = uploader.Finish();
    std::lock_guard lock(mutex);
    status.Update(mine);
  };
  const auto threads = std::min<int64_t>(
      pieces, std::clamp(std::thread::hardware_concurrency(), 1u, kMaxUploadThreads));
  std::vector<std::jthread> others;
  for (int64_t i = 1; i < threads; ++i) others.emplace_back(upload);
  upload();
  others.clear();  // joins
  return status;
}

}  // namespace swaa::kernels::cuda
