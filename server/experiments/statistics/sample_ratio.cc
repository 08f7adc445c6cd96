// A Dirichlet-multinomial test, and Pearson's beside it.

#include "server/experiments/statistics/sample_ratio.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "server/experiments/statistics/distributions.h"

namespace swaa::server {
namespace {

// std::lgamma writes the global signgam; arguments here are positive, so its sign is of no use.
double LogGamma(double x) {
  int sign = 0;
  return lgamma_r(x, &sign);
}

}  // namespace

double LogSampleRatioBayesFactor(const std::vector<uint64_t>& units,
                                 const std::vector<double>& shares, double concentration) {
  SWAA_CHECK_EQ(units.size(), shares.size());
  double total = 0;
  double log_factor = 0;
  for (size_t arm = 0; arm < units.size(); ++arm) {
    SWAA_CHECK_GT(shares[arm], 0);
    const double n = static_cast<double>(units[arm]);
    const double prior = concentration * shares[arm];
    total += n;
    log_factor += LogGamma(prior + n) - LogGamma(prior) - n * std::log(shares[arm]);
  }
  return log_factor + LogGamma(concentration) - LogGamma(concentration + total);
}

double LogSampleRatioPValue(const std::vector<uint64_t>& units, const std::vector<double>& shares) {
  return std::min(0.0, -LogSampleRatioBayesFactor(units, shares));
}

double SampleRatioChiSquaredPValue(const std::vector<uint64_t>& units,
                                   const std::vector<double>& shares) {
  SWAA_CHECK_EQ(units.size(), shares.size());
  const double total =
      static_cast<double>(std::accumulate(units.begin(), units.end(), uint64_t{0}));
  if (total == 0 || units.size() < 2) return 1;
  double statistic = 0;
  for (size_t arm = 0; arm < units.size(); ++arm) {
    const double expected = total * shares[arm];
    const double difference = static_cast<double>(units[arm]) - expected;
    statistic += difference * difference / expected;
  }
  return ChiSquaredPValue(statistic, static_cast<double>(units.size() - 1));
}

}  // namespace swaa::server
