// Boost.Math behind five functions, so that its headers are compiled once.

#include "server/experiments/statistics/distributions.h"

#include <cmath>

#include <boost/math/distributions/chi_squared.hpp>
#include <boost/math/distributions/normal.hpp>
#include <boost/math/distributions/students_t.hpp>

namespace swaa::server {

double NormalCdf(double z) { return boost::math::cdf(boost::math::normal(), z); }

double NormalQuantile(double p) { return boost::math::quantile(boost::math::normal(), p); }

double StudentTwoSidedPValue(double t, double degrees) {
  const boost::math::students_t distribution(degrees);
  return 2 * boost::math::cdf(boost::math::complement(distribution, std::abs(t)));
}

double StudentQuantile(double p, double degrees) {
  return boost::math::quantile(boost::math::students_t(degrees), p);
}

double ChiSquaredPValue(double x, double degrees) {
  return boost::math::cdf(boost::math::complement(boost::math::chi_squared(degrees), x));
}

}  // namespace swaa::server
