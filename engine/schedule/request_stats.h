// What a request cost.

#ifndef SWAA_ENGINE_SCHEDULE_REQUEST_STATS_H_
#define SWAA_ENGINE_SCHEDULE_REQUEST_STATS_H_

#include "engine/device/device.h"
#include "engine/generation.h"
#include "engine/schedule/request_state.h"

namespace swaa {

// The statistics that a request's last event carries, if it ends at `now`. Keys are counted by
// formula: every position that the answer needed, once, however often it was computed.
GenerationStats StatsOf(const RequestState& request, const DeviceInfo& device, SteadyTime now);

}  // namespace swaa

#endif  // SWAA_ENGINE_SCHEDULE_REQUEST_STATS_H_
