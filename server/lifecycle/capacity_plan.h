// How many requests of a recipe a server's page pool holds, and how many servers a load needs. Pure
// functions; pages are counted where the engine counts them (engine/recipe/visibility.h).

#ifndef SWAA_SERVER_LIFECYCLE_CAPACITY_PLAN_H_
#define SWAA_SERVER_LIFECYCLE_CAPACITY_PLAN_H_

#include <cstdint>
#include <optional>

#include "engine/device/device.h"
#include "engine/recipe/recipe.h"

namespace swaa::server {

// Of one request; at least 1 each.
struct RequestShape {
  int64_t prompt_tokens = 0;
  int64_t output_tokens = 0;
};

struct RecipeCapacity {
  int64_t decode_pages = 0;  // that suffice for decoding to the answer's end
  int64_t peak_pages = 0;    // that suffice for the prompt's chunks as well
  int64_t full_attention_pages = 0;
  // That run at once and all reach their ends without being preempted; at most `max_running`, and 0
  // for a request that is refused as one that never fits.
  int64_t at_once = 0;
};

RecipeCapacity CapacityOf(const Recipe& recipe, const RequestShape& shape, const DeviceInfo& device,
                          int64_t max_running);

// What a measured server did of such requests.
struct Measured {
  double requests_per_second = 0;
  double seconds_per_request = 0;
};

// Servers that answer `requests_per_second` as fast as the measured one did, by its throughput and
// by the requests that its pool holds (Little's law); absent where no number of them can.
std::optional<int64_t> ServersFor(double requests_per_second, const Measured& measured,
                                  const RecipeCapacity& capacity);

}  // namespace swaa::server

#endif  // SWAA_SERVER_LIFECYCLE_CAPACITY_PLAN_H_
