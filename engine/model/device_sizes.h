// What a device is to hold, before it holds it: how much of everything, and whether it fits.

#ifndef SWAA_ENGINE_MODEL_DEVICE_SIZES_H_
#define SWAA_ENGINE_MODEL_DEVICE_SIZES_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/checkpoint/model_config.h"
#include "engine/device/device.h"
#include "engine/model/model_device.h"
#include "engine/model/transformer.h"
#include "kernels/operators.h"

namespace swaa {

// Of one rank. `operators` and `config` outlive it.
class DeviceSizes {
 public:
  // Options that are not given become those that suit the backend.
  DeviceSizes(const kernels::Operators* operators, const ModelConfig* config,
              const ModelDeviceOptions& options);

  // Before anything is loaded: INVALID_ARGUMENT for options that cannot be, UNIMPLEMENTED for a
  // shape that the backend has no kernels for, RESOURCE_EXHAUSTED where there is not the memory.
  absl::Status Check();
  // All that Check weighs, of this rank; where the pool takes the rest, with the pages that are
  // left for it, or the fewest. INVALID_ARGUMENT and UNIMPLEMENTED likewise.
  absl::StatusOr<ModelMemory> Measure();
  // Whether the pool is to have what all else leaves: its pages are set when that is there.
  bool pool_takes_the_rest() const { return options_.kv_cache_bytes == 0; }
  // What is left for the pool once the weights are loaded, and pages of so many bytes.
  int64_t RestBytes() const;
  absl::Status SetPages(int64_t bytes);

  // All but weight_bytes.
  const DeviceInfo& info() const { return info_; }
  Transformer::Capacity transformer_capacity() const;
  kernels::StepCapacity step_capacity() const;

 private:
  int64_t ranks() const { return operators_->shard().size; }
  int32_t logits_rows() const;
  int64_t LeastPoolBytes() const { return (config_->num_layers + 1) * info_.page_bytes; }
  absl::Status FillInfo();
  ModelMemory Needs() const;
  absl::Status CheckMemory() const;

  const kernels::Operators* const operators_;
  const ModelConfig* const config_;
  const ModelDeviceOptions options_;
  const kernels::ModelShape shape_;
  DeviceInfo info_;
};

}  // namespace swaa

#endif  // SWAA_ENGINE_MODEL_DEVICE_SIZES_H_
