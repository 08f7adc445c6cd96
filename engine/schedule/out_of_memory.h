// Marks what ended because the host's memory ran out, not the device's.

#ifndef SWAA_ENGINE_SCHEDULE_OUT_OF_MEMORY_H_
#define SWAA_ENGINE_SCHEDULE_OUT_OF_MEMORY_H_

#include "absl/status/status.h"
#include "absl/strings/cord.h"

namespace swaa {

inline constexpr char kOutOfMemoryUrl[] = "swaa/out-of-memory";

inline absl::Status WithOutOfMemory(absl::Status status) {
  status.SetPayload(kOutOfMemoryUrl, absl::Cord("1"));
  return status;
}

inline bool IsOutOfMemory(const absl::Status& status) {
  return status.GetPayload(kOutOfMemoryUrl).has_value();
}

}  // namespace swaa

#endif  // SWAA_ENGINE_SCHEDULE_OUT_OF_MEMORY_H_
