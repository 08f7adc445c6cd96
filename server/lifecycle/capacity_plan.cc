// How many requests of a recipe a server's page pool holds, and how many servers a load needs.

#include "server/lifecycle/capacity_plan.h"

#include <algorithm>
#include <cmath>

#include "engine/recipe/visibility.h"
#include "kernels/page_count.h"

namespace swaa::server {

RecipeCapacity CapacityOf(const Recipe& recipe, const RequestShape& shape, const DeviceInfo& device,
                          int64_t max_running) {
  // The last output token's position is never computed.
  const int64_t total = shape.prompt_tokens + shape.output_tokens - 1;
  const int64_t steps = device.max_steps_in_flight;
  RecipeCapacity capacity{.decode_pages = PeakPages(recipe, total, steps),
                          .peak_pages = PeakPages(recipe, total, steps * device.max_step_tokens),
                          .full_attention_pages = kernels::PageCount(total) * recipe.num_layers()};
  const int64_t pool = device.num_pages - 1;
  if (capacity.peak_pages > pool) return capacity;
  // Prompts are computed one after the other: one request is at its peak, the others decode.
  capacity.at_once =
      std::min(max_running, 1 + (pool - capacity.peak_pages) / capacity.decode_pages);
  return capacity;
}

std::optional<int64_t> ServersFor(double requests_per_second, const Measured& measured,
                                  const RecipeCapacity& capacity) {
  if (measured.requests_per_second <= 0 || capacity.at_once == 0) return std::nullopt;
  const double by_speed = requests_per_second / measured.requests_per_second;
  const double by_memory =
      requests_per_second * measured.seconds_per_request / static_cast<double>(capacity.at_once);
  // A rounding error is no server.
  return std::max<int64_t>(
      1, static_cast<int64_t>(std::ceil(std::max(by_speed, by_memory) * (1 - 1e-9))));
}

}  // namespace swaa::server
