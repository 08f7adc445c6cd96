// How much a request may ask of a device: decided before it is queued.

#ifndef SWAA_ENGINE_SCHEDULE_OUTPUT_LIMIT_H_
#define SWAA_ENGINE_SCHEDULE_OUTPUT_LIMIT_H_

#include <chrono>
#include <cstdint>

#include "absl/status/statusor.h"
#include "engine/device/device.h"
#include "engine/generation.h"

namespace swaa {

struct SchedulerOptions {
  int32_t max_batch_tokens = 512;
  int32_t max_running_requests = 64;
  int32_t max_context_tokens = 0;
  bool prefix_cache = true;
  SteadyClock::duration priority_aging = std::chrono::seconds(10);  // as Rank has it
  // Blocks of 64 tokens that a step's plan may compare with the prefix cache while requests run: a
  // longer look-up goes on in the next ones.
  int64_t lookup_blocks = 64;
};

// Positions of one request that may be beyond what is committed: what one that slides may hold in
// pages besides its window.
inline int64_t MostSubmittedTokens(const SchedulerOptions& options, const DeviceInfo& device) {
  return int64_t{options.max_batch_tokens} * device.max_steps_in_flight;
}

// How many output tokens a request may have on a device: its max_tokens cut to the context (one
// behind a prompt that fills it) and, where absent, to what the pool holds for it alone.
// OUT_OF_RANGE: prompt or forced output beyond the context; RESOURCE_EXHAUSTED: beyond the whole
// pool (see never_fits.h). Pure.
absl::StatusOr<int32_t> MaxOutputTokens(const GenerationRequest& request,
                                        const SchedulerOptions& options, const DeviceInfo& device);

}  // namespace swaa

#endif  // SWAA_ENGINE_SCHEDULE_OUTPUT_LIMIT_H_
