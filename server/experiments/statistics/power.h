// How many units an experiment needs.

#ifndef SWAA_SERVER_EXPERIMENTS_STATISTICS_POWER_H_
#define SWAA_SERVER_EXPERIMENTS_STATISTICS_POWER_H_

#include <cstdint>

namespace swaa::server {

// What one pays for being allowed to look at any time: 1.6 times the units of a design with a
// single look give the same power of 80 %.
inline constexpr double kAlwaysValidInflation = 1.6;
inline constexpr double kPlannedPower = 0.8;

// Power of a two-sided normal test of level alpha at a true effect.
double FixedDesignPower(double effect, double standard_error, double alpha);

// The standard error at which a single look has `power`, the far tail left out.
double PlannedStandardError(double effect, double alpha, double power = kPlannedPower);

// Units that are still to come, so that an effect as large as minimum_detectable_effect is seen
// with 80 % power while looking at any time, if more units are like those seen: the standard error
// falls with the root of their number. standard_error > 0.
uint64_t FurtherUnits(uint64_t units_seen, double standard_error, double minimum_detectable_effect,
                      double alpha);

}  // namespace swaa::server

#endif  // SWAA_SERVER_EXPERIMENTS_STATISTICS_POWER_H_
