// The paired t statistic.

#include "server/experiments/statistics/paired_difference.h"

#include <cmath>

namespace swaa::server {

EffectEstimate PairedDifference(const std::vector<double>& differences) {
  std::vector<GroupTotals> pairs;
  pairs.reserve(differences.size());
  for (const double difference : differences) pairs.push_back({difference, 1});
  const RatioEstimate mean = EstimateRatio(pairs);
  return {.effect = mean.value,
          .standard_error = std::sqrt(mean.variance),
          .degrees_of_freedom = static_cast<double>(mean.groups - 1)};
}

}  // namespace swaa::server
