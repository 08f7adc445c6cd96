// What the engine computes on. The engine plans, submits, and collects later.

#ifndef SWAA_ENGINE_DEVICE_DEVICE_H_
#define SWAA_ENGINE_DEVICE_DEVICE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/device/adapter.h"
#include "engine/device/step.h"
#include "kernels/device_state.h"

namespace swaa {

struct LoraCheckpoint;  // engine/checkpoint/peft_adapter.h

// Fixed once the device is made.
struct DeviceInfo {
  std::string backend;  // "cpu"
  std::string name;     // for people
  int32_t ranks = 1;    // that share the model
  int32_t num_layers = 0;
  int32_t num_pages = 0;   // in the pool, page 0 (reserved, zero) included
  int64_t page_bytes = 0;  // one layer, 64 positions; on all ranks together
  int32_t num_slots = 0;   // requests whose page tables it holds at once
  int32_t max_pages_per_layer = 0;
  int32_t max_step_tokens = 0;
  int32_t max_steps_in_flight = 1;  // submitted and not collected
  int64_t weight_bytes = 0;         // on all ranks together
};

// Used by the engine thread alone, but for Memory, Facts and adapters. Steps are computed in the
// order of Submit; with two in flight the second may name tokens that the first draws
// (kDrawnToken).
class Device {
 public:
  virtual ~Device() = default;
  virtual const DeviceInfo& info() const = 0;
  // Starts a step after those submitted before it. At most info().max_steps_in_flight may be
  // uncollected.
  virtual void Submit(Step step) = 0;
  // Waits for the oldest uncollected step.
  virtual StepResult Collect() = 0;
  // For operators: where a rank's memory went, and what its driver tells, if it has one. From any
  // thread; cheap enough for every scrape of metrics.
  virtual kernels::MemoryUse Memory(int32_t rank) const = 0;
  virtual kernels::DeviceFacts Facts(int32_t rank) const = 0;
  // Whether it computes adapters. UNIMPLEMENTED says what has none.
  virtual absl::Status SupportsAdapters() const {
    return absl::UnimplementedError("adapters: this device computes none");
  }
  // An adapter of the device's model, ready for steps. From any thread, while steps are computed.
  // As SupportsAdapters; RESOURCE_EXHAUSTED where the memory is short.
  virtual absl::StatusOr<std::shared_ptr<const DeviceAdapter>> LoadAdapter(
      const LoraCheckpoint& checkpoint) {
    return SupportsAdapters();
  }
};

}  // namespace swaa

#endif  // SWAA_ENGINE_DEVICE_DEVICE_H_
