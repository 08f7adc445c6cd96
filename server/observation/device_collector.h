// The gauges of what the server computes on.

#ifndef SWAA_SERVER_OBSERVATION_DEVICE_COLLECTOR_H_
#define SWAA_SERVER_OBSERVATION_DEVICE_COLLECTOR_H_

#include <functional>
#include <vector>

#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>

#include "kernels/device_state.h"

namespace swaa::server {

// Memory by what it is for, and of the driver's facts those that it tells. Thread-safe.
class DeviceCollector : public prometheus::Collectable {
 public:
  // The functions are called from the exposer's threads.
  DeviceCollector(std::function<kernels::MemoryUse()> memory,
                  std::function<kernels::DeviceFacts()> facts);
  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const std::function<kernels::MemoryUse()> memory_;
  const std::function<kernels::DeviceFacts()> facts_;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_OBSERVATION_DEVICE_COLLECTOR_H_
