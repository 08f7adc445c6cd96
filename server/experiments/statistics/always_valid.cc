// Normal mixtures, two-sided and one-sided.

#include "server/experiments/statistics/always_valid.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/check.h"

namespace swaa::server {

double AlwaysValidHalfWidth(double standard_error, double tau, double alpha) {
  SWAA_CHECK(tau > 0 && alpha > 0 && alpha < 1);
  if (standard_error <= 0) return std::numeric_limits<double>::infinity();
  const double x = tau * tau / (standard_error * standard_error);
  return standard_error * std::sqrt((1 + 1 / x) * (std::log1p(x) - 2 * std::log(alpha)));
}

double AlwaysValidPValue(double effect, double standard_error, double tau) {
  SWAA_CHECK_GT(tau, 0);
  if (standard_error <= 0) return 1;
  const double x = tau * tau / (standard_error * standard_error);
  const double z = effect / standard_error;
  return std::min(1.0, std::exp(0.5 * std::log1p(x) - x * z * z / (2 * (1 + x))));
}

double OneSidedMargin(double standard_error, double tau, double alpha) {
  SWAA_CHECK(tau > 0 && alpha > 0 && alpha < 1);
  if (standard_error <= 0) return std::numeric_limits<double>::infinity();
  const double x = tau * tau / (standard_error * standard_error);
  return standard_error * std::sqrt(2 * (1 + 1 / x) * std::log1p(std::sqrt(1 + x) / (2 * alpha)));
}

std::vector<double> HolmAdjusted(const std::vector<double>& p_values) {
  std::vector<size_t> order(p_values.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return p_values[a] < p_values[b]; });
  std::vector<double> adjusted(p_values.size());
  double least = 0;
  for (size_t rank = 0; rank < order.size(); ++rank) {
    const double factor = static_cast<double>(order.size() - rank);
    least = std::max(least, std::min(1.0, factor * p_values[order[rank]]));
    adjusted[order[rank]] = least;
  }
  return adjusted;
}

}  // namespace swaa::server
