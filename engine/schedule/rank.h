// Who goes first: the order in which requests are served.

#ifndef SWAA_ENGINE_SCHEDULE_RANK_H_
#define SWAA_ENGINE_SCHEDULE_RANK_H_

#include <compare>
#include <cstdint>

#include "engine/generation.h"

namespace swaa {

// The smaller goes first. It is a request's for life: priority is counted as time, which a higher
// one is ahead of its arrival, so that waiting makes up for any lack of it, and yet no two requests
// ever change places.
struct Rank {
  // `aging`: waiting for so long counts as much as one priority more. At most an hour, with a
  // priority of at most 2^20 and at least -2^20. `order` tells those of the same due time apart.
  static Rank Of(SteadyTime arrival, int32_t priority, SteadyClock::duration aging,
                 uint64_t order) {
    return {false, arrival - priority * aging, order};
  }
  // Shadows have no priority and come after all others.
  static Rank OfShadow(SteadyTime arrival, uint64_t order) { return {true, arrival, order}; }

  bool shadow = false;
  SteadyTime due = {};
  uint64_t order = 0;

  friend auto operator<=>(const Rank&, const Rank&) = default;
};

}  // namespace swaa

#endif  // SWAA_ENGINE_SCHEDULE_RANK_H_
