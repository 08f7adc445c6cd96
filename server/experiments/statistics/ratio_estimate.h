// One estimator for means, rates, geometric means and ratios: a ratio of sums whose standard error
// counts groups of units, not requests, so that a unit's requests may be as alike as they like.
//
//   R = sum S / sum N,  e_g = S_g - R N_g,  V = m / (m - 1) * sum e_g^2 / (sum N)^2
//
// with the m groups that have data: the delta method (Deng, Knoblich and Lu, KDD 2018) in a form
// without cancellation. With one unit a group and N_g = 1 a difference is Welch's t exactly.

#ifndef SWAA_SERVER_EXPERIMENTS_STATISTICS_RATIO_ESTIMATE_H_
#define SWAA_SERVER_EXPERIMENTS_STATISTICS_RATIO_ESTIMATE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "server/experiments/experiment_data.h"

namespace swaa::server {

// A group's S and N. N need not be a count: with keys attended over keys it is a sum, too.
struct GroupTotals {
  double numerator = 0;
  double denominator = 0;
};

std::vector<GroupTotals> ToGroupTotals(std::span<const Sum> sums);

struct RatioEstimate {
  double value = 0;        // R
  double variance = 0;     // V; 0 with fewer than two groups
  double denominator = 0;  // sum N
  int64_t groups = 0;      // m

  // Whether there is a variance to speak of.
  bool usable() const { return groups >= 2 && denominator > 0; }
};

RatioEstimate EstimateRatio(std::span<const GroupTotals> groups);
RatioEstimate EstimateRatio(std::span<const Sum> sums);

struct EffectEstimate {
  double effect = 0;
  double standard_error = 0;
  double degrees_of_freedom = 0;  // Welch and Satterthwaite's, over groups
};

// treatment - control; both usable. With unequal shares the smaller arm's variance is known the
// least where its tail is heavy, so each arm's is at least what the arms together would give it.
EffectEstimate Difference(const RatioEstimate& treatment, const RatioEstimate& control,
                          bool unequal_shares);

// ln (treatment / control) of two positive values.
EffectEstimate LogRatio(const RatioEstimate& treatment, const RatioEstimate& control,
                        bool unequal_shares);

// For a single look at a time fixed beforehand: Welch's test.
double SingleLookPValue(const EffectEstimate& estimate);

}  // namespace swaa::server

#endif  // SWAA_SERVER_EXPERIMENTS_STATISTICS_RATIO_ESTIMATE_H_
