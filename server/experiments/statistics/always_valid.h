// Intervals and p-values that hold however often one looks: a sequence of normal mixtures, written
// in standard errors, so that it needs no number of observations.
//
// Howard, Ramdas, McAuliffe and Sekhon, Annals of Statistics 49 (2021); Waudby-Smith, Arbour,
// Sinha, Kennedy and Ramdas, arXiv 2103.06476. tau, the mixture's width, tunes where the interval
// is narrowest: the effect that one wants to see is a good choice.

#ifndef SWAA_SERVER_EXPERIMENTS_STATISTICS_ALWAYS_VALID_H_
#define SWAA_SERVER_EXPERIMENTS_STATISTICS_ALWAYS_VALID_H_

#include <vector>

namespace swaa::server {

// Standard errors >= 0, tau > 0, alpha in (0, 1).

// effect +- this covers the true effect at all times with probability 1 - alpha. Infinite without a
// standard error's meaning (0 is one group's, not certainty).
double AlwaysValidHalfWidth(double standard_error, double tau, double alpha);

// The least alpha at which the interval leaves 0 out.
double AlwaysValidPValue(double effect, double standard_error, double tau);

// effect - this is a lower bound of the true effect at all times with probability 1 - alpha.
double OneSidedMargin(double standard_error, double tau, double alpha);

// Holm's adjusted p-values, in the order given: those below alpha are significant together with an
// error of alpha.
std::vector<double> HolmAdjusted(const std::vector<double>& p_values);

}  // namespace swaa::server

#endif  // SWAA_SERVER_EXPERIMENTS_STATISTICS_ALWAYS_VALID_H_
