// A switchback's statistics: one datum a pair of windows, the difference of the two arms' means.

#ifndef SWAA_SERVER_EXPERIMENTS_STATISTICS_PAIRED_DIFFERENCE_H_
#define SWAA_SERVER_EXPERIMENTS_STATISTICS_PAIRED_DIFFERENCE_H_

#include <cstdint>
#include <vector>

#include "server/experiments/statistics/ratio_estimate.h"

namespace swaa::server {

// Fewer pairs give no verdict.
inline constexpr int64_t kLeastPairs = 12;

// Means of treatment less control by pair -> their mean, its standard error and pairs - 1 degrees
// of freedom. The standard error is 0 with fewer than two pairs.
EffectEstimate PairedDifference(const std::vector<double>& differences);

}  // namespace swaa::server

#endif  // SWAA_SERVER_EXPERIMENTS_STATISTICS_PAIRED_DIFFERENCE_H_
