// Normal approximations of power.

#include "server/experiments/statistics/power.h"

#include <cmath>

#include "base/check.h"
#include "server/experiments/statistics/distributions.h"

namespace swaa::server {

double FixedDesignPower(double effect, double standard_error, double alpha) {
  const double critical = NormalQuantile(1 - alpha / 2);
  const double shift = effect / standard_error;
  return NormalCdf(shift - critical) + NormalCdf(-shift - critical);
}

double PlannedStandardError(double effect, double alpha, double power) {
  return effect / (NormalQuantile(1 - alpha / 2) + NormalQuantile(power));
}

uint64_t FurtherUnits(uint64_t units_seen, double standard_error, double minimum_detectable_effect,
                      double alpha) {
  SWAA_CHECK(standard_error > 0 && minimum_detectable_effect > 0);
  const double ratio = standard_error / PlannedStandardError(minimum_detectable_effect, alpha);
  const double seen = static_cast<double>(units_seen);
  const double further = kAlwaysValidInflation * seen * ratio * ratio - seen;
  // More than the world has people is told as that.
  return further <= 0 ? 0 : static_cast<uint64_t>(std::ceil(std::fmin(further, 1e10)));
}

}  // namespace swaa::server
