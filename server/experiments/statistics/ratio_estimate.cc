// The delta method over groups, differences and ratios of it.

#include "server/experiments/statistics/ratio_estimate.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "server/experiments/statistics/distributions.h"

namespace swaa::server {
namespace {

// Two variances of means and the degrees of freedom that each is known with.
EffectEstimate Combine(double effect, double variance_t, double groups_t, double variance_c,
                       double groups_c) {
  EffectEstimate estimate{.effect = effect};
  const double variance = variance_t + variance_c;
  estimate.standard_error = std::sqrt(variance);
  const double spread =
      variance_t * variance_t / (groups_t - 1) + variance_c * variance_c / (groups_c - 1);
  estimate.degrees_of_freedom = spread > 0 ? variance * variance / spread : groups_t + groups_c - 2;
  return estimate;
}

}  // namespace

std::vector<GroupTotals> ToGroupTotals(std::span<const Sum> sums) {
  std::vector<GroupTotals> totals;
  totals.reserve(sums.size());
  for (const Sum& sum : sums) totals.push_back({sum.sum, static_cast<double>(sum.count)});
  return totals;
}

RatioEstimate EstimateRatio(std::span<const GroupTotals> groups) {
  RatioEstimate estimate;
  double numerator = 0;
  for (const GroupTotals& group : groups) {
    if (group.denominator <= 0) continue;
    ++estimate.groups;
    numerator += group.numerator;
    estimate.denominator += group.denominator;
  }
  if (estimate.groups == 0) return estimate;
  estimate.value = numerator / estimate.denominator;
  if (estimate.groups < 2) return estimate;
  double squares = 0;
  for (const GroupTotals& group : groups) {
    if (group.denominator <= 0) continue;
    const double residual = group.numerator - estimate.value * group.denominator;
    squares += residual * residual;
  }
  const double m = static_cast<double>(estimate.groups);
  estimate.variance = m / (m - 1) * squares / (estimate.denominator * estimate.denominator);
  return estimate;
}

RatioEstimate EstimateRatio(std::span<const Sum> sums) {
  return EstimateRatio(ToGroupTotals(sums));
}

EffectEstimate Difference(const RatioEstimate& treatment, const RatioEstimate& control,
                          bool unequal_shares) {
  SWAA_CHECK(treatment.usable() && control.usable());
  double variance_t = treatment.variance;
  double variance_c = control.variance;
  if (unequal_shares) {
    const double n_t = treatment.denominator;
    const double n_c = control.denominator;
    const double pooled = (variance_t * n_t * n_t + variance_c * n_c * n_c) / (n_t + n_c);
    variance_t = std::max(variance_t, pooled / n_t);
    variance_c = std::max(variance_c, pooled / n_c);
  }
  return Combine(treatment.value - control.value, variance_t, static_cast<double>(treatment.groups),
                 variance_c, static_cast<double>(control.groups));
}

EffectEstimate LogRatio(const RatioEstimate& treatment, const RatioEstimate& control,
                        bool unequal_shares) {
  SWAA_CHECK(treatment.value > 0 && control.value > 0);
  const auto relative = [](const RatioEstimate& estimate) {
    RatioEstimate logarithm = estimate;
    logarithm.value = std::log(estimate.value);
    logarithm.variance = estimate.variance / (estimate.value * estimate.value);
    return logarithm;
  };
  return Difference(relative(treatment), relative(control), unequal_shares);
}

double SingleLookPValue(const EffectEstimate& estimate) {
  if (estimate.standard_error <= 0) return estimate.effect == 0 ? 1 : 0;
  return StudentTwoSidedPValue(estimate.effect / estimate.standard_error,
                               estimate.degrees_of_freedom);
}

}  // namespace swaa::server
