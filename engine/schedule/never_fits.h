// Marks a refusal that no waiting can change.

#ifndef SWAA_ENGINE_SCHEDULE_NEVER_FITS_H_
#define SWAA_ENGINE_SCHEDULE_NEVER_FITS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/cord.h"

namespace swaa {

inline constexpr char kNeverFitsUrl[] = "swaa/never-fits";

inline absl::Status NeverFitsError(const std::string& message) {
  absl::Status status = absl::ResourceExhaustedError(message);
  status.SetPayload(kNeverFitsUrl, absl::Cord("1"));
  return status;
}

// Whether a refusal can never succeed on this server, however long one waits.
inline bool IsNeverFits(const absl::Status& status) {
  return status.GetPayload(kNeverFitsUrl).has_value();
}

}  // namespace swaa

#endif  // SWAA_ENGINE_SCHEDULE_NEVER_FITS_H_
