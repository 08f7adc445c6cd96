// Matrices' way from the host into a GPU's memory.

#include "kernels/cuda/matrix_upload.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <cuda_runtime_api.h>
#include <mutex>
#include <thread>

#include "base/status_macros.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/device_memory.h"

namespace swaa::kernels::cuda {
namespace {

constexpr int64_t kPieceElements = int64_t{1} << 20;
constexpr unsigned kMaxThreads = 16;

}  // namespace

// Some rows of a part, and where they go.
struct MatrixUpload::Piece {
  const HostRows* part = nullptr;
  int64_t first_row = 0;
  int64_t rows = 0;
  std::byte* target = nullptr;
};

// What one thread copies with.
class MatrixUpload::Worker {
 public:
  // Room for pieces of so many elements; nothing to do where there is such room.
  absl::Status Open(int64_t elements) {
    if (stream_ == nullptr) {
      SWAA_RETURN_IF_ERROR(CudaStatus(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking),
                                      "a stream for loading"));
    }
    for (Staging& staging : stagings_) {
      if (staging.copied == nullptr) {
        SWAA_RETURN_IF_ERROR(
            CudaStatus(cudaEventCreateWithFlags(&staging.copied, cudaEventDisableTiming),
                       "an event for loading"));
      }
      if (staging.memory.bytes() < 2 * elements) {
        SWAA_ASSIGN_OR_RETURN(staging.memory, PinnedMemory::Allocate(2 * elements));
      }
    }
    return absl::OkStatus();
  }
  ~Worker() {
    if (stream_ != nullptr) cudaStreamSynchronize(stream_);
    for (const Staging& staging : stagings_) {
      if (staging.copied != nullptr) cudaEventDestroy(staging.copied);
    }
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }

  absl::Status Copy(const Piece& piece, int64_t columns) {
    Staging& staging = stagings_[turn_];
    turn_ = 1 - turn_;
    SWAA_RETURN_IF_ERROR(CudaStatus(cudaEventSynchronize(staging.copied), "loading"));
    const int64_t bytes = 2 * piece.rows * columns;
    if (piece.part->bf16 != nullptr) {
      std::memcpy(staging.memory.data(), piece.part->bf16 + 2 * piece.first_row * columns, bytes);
    } else {
      values_.resize(piece.rows * columns);
      piece.part->read(piece.first_row, piece.rows, values_.data());
      std::transform(values_.begin(), values_.end(), reinterpret_cast<Bf16*>(staging.memory.data()),
                     ToBf16);
    }
    SWAA_RETURN_IF_ERROR(CudaStatus(cudaMemcpyAsync(piece.target, staging.memory.data(), bytes,
                                                    cudaMemcpyHostToDevice, stream_),
                                    "loading"));
    return CudaStatus(cudaEventRecord(staging.copied, stream_), "loading");
  }

  absl::Status Finish() { return CudaStatus(cudaStreamSynchronize(stream_), "loading"); }

 private:
  struct Staging {
    PinnedMemory memory;
    cudaEvent_t copied = nullptr;  // what was in it has been read
  };

  cudaStream_t stream_ = nullptr;
  Staging stagings_[2];
  std::vector<float> values_;
  int turn_ = 0;
};

MatrixUpload::MatrixUpload(int ordinal) : ordinal_(ordinal) {}
MatrixUpload::~MatrixUpload() = default;

absl::Status MatrixUpload::Fill(std::byte* matrix, int64_t columns,
                                std::span<const HostRows> parts) {
  const int64_t most_rows = std::max<int64_t>(1, kPieceElements / columns);
  std::vector<Piece> pieces;
  for (const HostRows& part : parts) {
    for (int64_t first = 0; first < part.count; first += most_rows) {
      const int64_t rows = std::min(most_rows, part.count - first);
      pieces.push_back({&part, first, rows, matrix});
      matrix += 2 * rows * columns;
    }
  }
  const size_t threads = std::min<size_t>(
      pieces.size(), std::clamp(std::thread::hardware_concurrency(), 1u, kMaxThreads));
  while (workers_.size() < threads) workers_.push_back(std::make_unique<Worker>());
  std::atomic<size_t> next = 0;
  std::mutex mutex;
  absl::Status status;  // guarded by mutex
  const auto copy = [&](Worker* worker) {
    absl::Status mine = CudaStatus(cudaSetDevice(ordinal_), "loading");
    mine.Update(worker->Open(most_rows * columns));
    for (size_t i = next++; mine.ok() && i < pieces.size(); i = next++) {
      mine = worker->Copy(pieces[i], columns);
    }
    if (mine.ok()) mine = worker->Finish();
    std::lock_guard lock(mutex);
    status.Update(mine);
  };
  std::vector<std::jthread> others;
  for (size_t i = 1; i < threads; ++i) others.emplace_back(copy, workers_[i].get());
  if (threads > 0) copy(workers_[0].get());
  others.clear();  // joins
  return status;
}

}  // namespace swaa::kernels::cuda
