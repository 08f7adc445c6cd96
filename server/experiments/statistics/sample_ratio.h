// Whether units fell into arms as they should have: what must hold before any result means much.

#ifndef SWAA_SERVER_EXPERIMENTS_STATISTICS_SAMPLE_RATIO_H_
#define SWAA_SERVER_EXPERIMENTS_STATISTICS_SAMPLE_RATIO_H_

#include <cstdint>
#include <vector>

namespace swaa::server {

// The prior's weight in units.
inline constexpr double kSampleRatioConcentration = 1000;
// A mismatch below this p-value.
inline constexpr double kSampleRatioAlpha = 0.001;

// ln of the Bayes factor of a Dirichlet(concentration * shares) multinomial against `shares`
// (Lindon and Malek, arXiv 2011.03567). Shares sum to 1, each above 0. min over time of exp(-this)
// is an always valid p-value.
double LogSampleRatioBayesFactor(const std::vector<uint64_t>& units,
                                 const std::vector<double>& shares,
                                 double concentration = kSampleRatioConcentration);

// ln p at one look, at most 0: what is stored is the least of them.
double LogSampleRatioPValue(const std::vector<uint64_t>& units, const std::vector<double>& shares);

// Pearson's test, valid for a single look only. 1 without units.
double SampleRatioChiSquaredPValue(const std::vector<uint64_t>& units,
                                   const std::vector<double>& shares);

}  // namespace swaa::server

#endif  // SWAA_SERVER_EXPERIMENTS_STATISTICS_SAMPLE_RATIO_H_
