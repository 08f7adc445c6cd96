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
  // The pool; at least one page a layer and the zero page. 0: 2 GiB on the CPU; on a GPU all memory
  // that weights, activations and tables leave of OperatorsOptions::gpu_memory_utilization.
  int64_t kv_cache_bytes = 0;
  int32_t max_step_tokens = 0;  // rows of the largest step; 0: 512 on the CPU, 8192 on a GPU
  int32_t num_slots = 64;
  int32_t max_context_tokens = 0;  // 0: the model's
  // Called while weights are packed, with a share in [0, 1].
  std::function<void(double)> on_progress;
};

// RESOURCE_EXHAUSTED if the machine has not the memory for weights and pool; says what to lower.
absl::StatusOr<std::unique_ptr<Device>> CreateModelDevice(const Checkpoint& checkpoint,
                                                          const ModelDeviceOptions& options);

}  // namespace swaa

#endif  // SWAA_ENGINE_MODEL_MODEL_DEVICE_H_
