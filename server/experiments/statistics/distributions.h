// Tail probabilities and quantiles that the statistics need, by Boost.Math.

#ifndef SWAA_SERVER_EXPERIMENTS_STATISTICS_DISTRIBUTIONS_H_
#define SWAA_SERVER_EXPERIMENTS_STATISTICS_DISTRIBUTIONS_H_

namespace swaa::server {

// P(Z <= z) of the standard normal distribution, and its inverse for p in (0, 1).
double NormalCdf(double z);
double NormalQuantile(double p);

// P(|T| >= |t|) of Student's distribution with `degrees` > 0, and t with P(T <= t) = p.
double StudentTwoSidedPValue(double t, double degrees);
double StudentQuantile(double p, double degrees);

// P(X >= x) of the chi-squared distribution; x >= 0.
double ChiSquaredPValue(double x, double degrees);

}  // namespace swaa::server

#endif  // SWAA_SERVER_EXPERIMENTS_STATISTICS_DISTRIBUTIONS_H_
