// What a GPU's operators need of the ranks that share their model. In a header free of NCCL: a
// build without it has none of them.

#ifndef SWAA_KERNELS_CUDA_RANKS_GPU_COMMUNICATOR_H_
#define SWAA_KERNELS_CUDA_RANKS_GPU_COMMUNICATOR_H_

#include <cstddef>
#include <cstdint>
#include <cuda_runtime_api.h>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/ranks/sum_norm.h"
#include "kernels/ranks/communicator.h"

namespace swaa::kernels::cuda {

// One rank's end. Enqueues on the stream that it was bound to, and may be captured into a graph.
class GpuCommunicator : public Communicator {
 public:
  // Memory that GatherColumns needs for so many rows and columns.
  static int64_t GatherBytes(int64_t rows, int64_t columns, int32_t size) {
    return size == 1 ? 0 : rows * MostColumns(columns, size) * size * int64_t{sizeof(float)};
  }

  // Before anything is enqueued.
  virtual void Bind(cudaStream_t stream) = 0;
  // Before GatherColumns and Peers: as many bytes as the largest gathering needs, and `signals`,
  // SumSignals::Bytes of zeroed memory that the other GPUs may reach.
  virtual void UseMemory(std::byte* gathered, std::byte* signals) = 0;
  // The same buffer of all ranks, and how they wait for each other; null where not all GPUs reach
  // each other's memory, or more of them do than kernels know. The ranks meet where a buffer is
  // asked for the first time.
  virtual const RankBuffers* Peers(const Bf16* mine) = 0;
  // Whether the ranks meet on the host before and after each call: while they do, no GPU waits for
  // one whose host has other things to do first.
  virtual void KeepTogether(bool together) = 0;
  // Meets the others where they are kept together; for who enqueues what Peers says.
  virtual void Meet() = 0;
  // Waits until no GPU does anything that this one or its memory takes part in; it is unbound then.
  // Before the memory is freed that others may reach, and after the steps or Abort.
  virtual void Leave() = 0;
  // OK until Abort.
  virtual absl::Status status() const = 0;
};

// The ends of ranks on these GPUs, in order; makes each reach the others' memory where it can.
// FAILED_PRECONDITION as LoadNccl, or where NCCL does not start.
absl::StatusOr<std::vector<std::unique_ptr<GpuCommunicator>>> MakeGpuCommunicators(
    std::span<const int> ordinals);

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_RANKS_GPU_COMMUNICATOR_H_
