// Marks what is refused or ended because the device, or the engine, works no more.

#ifndef SWAA_ENGINE_SCHEDULE_DEVICE_LOST_H_
#define SWAA_ENGINE_SCHEDULE_DEVICE_LOST_H_

#include "absl/status/status.h"
#include "absl/strings/cord.h"

namespace swaa {

inline constexpr char kDeviceLostUrl[] = "swaa/device-lost";

inline absl::Status WithDeviceLost(absl::Status status) {
  status.SetPayload(kDeviceLostUrl, absl::Cord("1"));
  return status;
}

// Whether no request can succeed on this server again.
inline bool IsDeviceLost(const absl::Status& status) {
  return status.GetPayload(kDeviceLostUrl).has_value();
}

}  // namespace swaa

#endif  // SWAA_ENGINE_SCHEDULE_DEVICE_LOST_H_
