// Several devices that compute one model together, as one.

#ifndef SWAA_ENGINE_MODEL_TENSOR_PARALLEL_DEVICE_H_
#define SWAA_ENGINE_MODEL_TENSOR_PARALLEL_DEVICE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "engine/device/device.h"

namespace swaa {

// What the device is, of one rank's, with as many; weight_bytes are that rank's still.
DeviceInfo OfAllRanks(const DeviceInfo& rank, int32_t ranks);

// Every rank is given the same steps; all draw the same tokens, and the first one's are told. A
// step that fails on one rank has failed. `abort` must end whatever ranks wait for on each other:
// it is called before the ranks are freed, and ranks whose device is lost must have called it
// themselves.
std::unique_ptr<Device> MakeTensorParallelDevice(std::vector<std::unique_ptr<Device>> ranks,
                                                 std::function<void(const absl::Status&)> abort);

}  // namespace swaa

#endif  // SWAA_ENGINE_MODEL_TENSOR_PARALLEL_DEVICE_H_
