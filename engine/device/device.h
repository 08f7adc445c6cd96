// What the engine computes on. The engine plans, submits, and collects later.

#ifndef SWAA_ENGINE_DEVICE_DEVICE_H_
#define SWAA_ENGINE_DEVICE_DEVICE_H_

#include <cstdint>
#include <string>

#include "engine/device/step.h"
#include "kernels/device_state.h"

namespace swaa {

// Fixed once the device is made.
struct DeviceInfo {
  std::string backend;  // "cpu"
  std::string name;     // for people
  int32_t num_layers = 0;
  int32_t num_pages = 0;   // in the pool, page 0 (reserved, zero) included
  int64_t page_bytes = 0;  // one layer, 64 positions
  int32_t num_slots = 0;   // requests whose page tables it holds at once
  int32_t max_pages_per_layer = 0;
  int32_t max_step_tokens = 0;
  int32_t max_steps_in_flight = 1;  // submitted and not collected
  int64_t weight_bytes = 0;
};

// Used by the engine thread alone, but for Memory and Facts. Steps are computed in the order of
// Submit; with two in flight the second may name tokens that the first draws (kDrawnToken).
class Device {
 public:
  virtual ~Device() = default;
  virtual const DeviceInfo& info() const = 0;
  // Starts a step after those submitted before it. At most info().max_steps_in_flight may be
  // uncollected.
  virtual void Submit(Step step) = 0;
  // Waits for the oldest uncollected step.
  virtual StepResult Collect() = 0;
  // For operators: where the device's memory went, and what its driver tells, if it has one. From
  // any thread; cheap enough for every scrape of metrics.
  virtual kernels::MemoryUse Memory() const = 0;
  virtual kernels::DeviceFacts Facts() const = 0;
};

}  // namespace swaa

#endif  // SWAA_ENGINE_DEVICE_DEVICE_H_
