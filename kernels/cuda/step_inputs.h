// What a step brings to the device, in one copy: its rows, its attention's plans, changes of the
// page table.

#ifndef SWAA_KERNELS_CUDA_STEP_INPUTS_H_
#define SWAA_KERNELS_CUDA_STEP_INPUTS_H_

#include <cstddef>
#include <cstdint>
#include <cuda_runtime_api.h>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "kernels/cuda/attention/attention.h"
#include "kernels/cuda/cuda_step.h"
#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/elementwise/elementwise.h"
#include "kernels/operators.h"

namespace swaa::kernels::cuda {

AttentionShape AttentionShapeOf(const StepCapacity& capacity);

// The page table and the newest step's inputs on the device. Used by one thread. Throws CudaError.
class StepInputs {
 public:
  // Device memory that Prepare takes.
  static int64_t DeviceBytes(const StepCapacity& capacity, int32_t multiprocessors);

  // Once, before all else. RESOURCE_EXHAUSTED, naming what lacks memory.
  absl::Status Prepare(const StepCapacity& capacity, int32_t multiprocessors, DeviceArena* arena);

  // Of a step's inputs, on the host too.
  int64_t block_bytes() const { return block_bytes_; }
  PageTableView page_table() const {
    return {reinterpret_cast<const int32_t*>(page_table_), capacity_.model.num_layers,
            capacity_.max_pages_per_layer};
  }

  // Writes the step's inputs to its block and sends it: the one copy of a step. Everything that is
  // enqueued later reads the block's copy on the device, which the next step's overwrites when all
  // of it has been read. The step's rows are set; its device addresses and plans are set here.
  void Send(const StepInput& input, PagedAttention* attention, cudaStream_t stream,
            CudaStep* step) const;

 private:
  LoraRows WriteLoraRows(const AdapterRows& grouped, int64_t rows, BlockWriter* block) const;
  void WriteAdapters(const StepInput& input, CudaStep* step, BlockWriter* block) const;
  void WritePlan(const AttentionStep& step, DecodePlan* decode_plans, int32_t max_classes,
                 PagedAttention* attention, std::optional<AttentionPlan>* plan,
                 BlockWriter* block) const;
  std::vector<PageTableEntry> SendEarlyUpdates(std::span<const PageTableUpdate> updates,
                                               cudaStream_t stream) const;
  void SetPageTableEntries(const PageTableEntry* updates, int64_t count, cudaStream_t stream) const;

  StepCapacity capacity_;
  int64_t block_bytes_ = 0;
  // In the arena:
  std::byte* page_table_ = nullptr;
  std::byte* block_ = nullptr;
  DecodePlan* decode_plans_ = nullptr;         // [layers]
  DecodePlan* wanted_decode_plans_ = nullptr;  // [1]
};

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_STEP_INPUTS_H_
