// Adds observations to observations.

#ifndef SWAA_SERVER_EXPERIMENTS_STORAGE_ACCUMULATE_H_
#define SWAA_SERVER_EXPERIMENTS_STORAGE_ACCUMULATE_H_

#include <cstddef>
#include <cstdint>

#include "server/experiments/experiment_data.h"

namespace swaa::server {

// What both records of one unit say together, whichever comes first: the arm of the earlier first
// exposure (of two at once the lower one), the earliest times, all arms seen.
UnitRecord Unite(const UnitRecord& a, const UnitRecord& b);

// Adds `more` to `into`. The order of additions matters only for the rounding of sums.
void Accumulate(const Observations& more, Observations* into);

// How many entries it holds, bins of sketches one by one: what its memory goes by.
size_t NumEntries(const Observations& observations);

// How many observations are in it: values summed and units seen. A sketch's values are in its sums
// as well and count once.
int64_t NumObservations(const Observations& observations);

}  // namespace swaa::server

#endif  // SWAA_SERVER_EXPERIMENTS_STORAGE_ACCUMULATE_H_
