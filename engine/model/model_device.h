// A Device that runs a checkpoint's transformer on a backend: weights, pages, page table, and a
// thread of its own that computes the submitted steps in order.

#ifndef SWAA_ENGINE_MODEL_MODEL_DEVICE_H_
#define SWAA_ENGINE_MODEL_MODEL_DEVICE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/device/device.h"
#include "kernels/operators.h"

namespace swaa {

struct ModelDeviceOptions {
  kernels::OperatorsOptions operators;
  // That share the model (rank_slices.h), each on a device of its own (kernels::CreateRanks).
  int32_t ranks = 1;
  // The pool, of all ranks together; at least one page a layer and the zero page. 0: 2 GiB on the
  // CPU; on GPUs all memory that weights, activations and tables leave of
  // OperatorsOptions::gpu_memory_utilization.
  int64_t kv_cache_bytes = 0;
  int32_t max_step_tokens = 0;  // rows of the largest step; 0: 512 on the CPU, 8192 on a GPU
  int32_t num_slots = 64;
  int32_t max_context_tokens = 0;  // 0: the model's
  // Called while weights are packed, with a share in [0, 1].
  std::function<void(double)> on_progress;
};

// What a device of these options takes, weights at most and pool as it would be, on all ranks
// together: the figures by which CreateModelDevice refuses what does not fit.
struct ModelMemory {
  DeviceInfo device;  // with the pages of the pool
  int64_t weight_bytes = 0;
  int64_t pool_bytes = 0;
  int64_t besides_bytes = 0;  // activations, tables, and what a process takes
  int64_t available_bytes = 0;
};

// Looks at the machine and at `config`, and loads nothing. As CreateModelDevice, but not
// RESOURCE_EXHAUSTED: a pool that has no size of its own has that which is left, or the least.
absl::StatusOr<ModelMemory> MeasureModelMemory(const ModelConfig& config,
                                               const ModelDeviceOptions& options);

// RESOURCE_EXHAUSTED if the machine has not the memory for weights and pool; says what to lower. As
// CheckRanks. Where several ranks share the model, whatever fails on one fails the step on all, and
// what is more than a wrong step or a lack of memory before it began loses the device.
absl::StatusOr<std::unique_ptr<Device>> CreateModelDevice(const Checkpoint& checkpoint,
                                                          const ModelDeviceOptions& options);

}  // namespace swaa

#endif  // SWAA_ENGINE_MODEL_MODEL_DEVICE_H_
