// The gauges of what the server computes on.

#ifndef SWAA_SERVER_OBSERVATION_DEVICE_COLLECTOR_H_
#define SWAA_SERVER_OBSERVATION_DEVICE_COLLECTOR_H_

#include <cstdint>
#include <functional>
#include <vector>

#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>

#include "kernels/device_state.h"

namespace swaa::server {

// Memory by what it is for, and of the driver's facts those that it tells. Thread-safe.
class DeviceCollector : public prometheus::Collectable {
 public:
  // The functions are called from the exposer's threads, with a rank; of several ranks each has its
  // samples, with a label that names it.
  DeviceCollector(int32_t ranks, std::function<kernels::MemoryUse(int32_t)> memory,
                  std::function<kernels::DeviceFacts(int32_t)> facts);
  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const int32_t ranks_;
  const std::function<kernels::MemoryUse(int32_t)> memory_;
  const std::function<kernels::DeviceFacts(int32_t)> facts_;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_OBSERVATION_DEVICE_COLLECTOR_H_
