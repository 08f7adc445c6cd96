// Bench: statistics of a sample.

#ifndef SWAA_TOOLS_BENCH_STATISTICS_H_
#define SWAA_TOOLS_BENCH_STATISTICS_H_

#include <cstddef>
#include <vector>

namespace swaa::tools::bench {

// Means 0 where there are no values; `count` tells.
struct Distribution {
  size_t count = 0;
  double mean = 0;
  double median = 0;
  double standard_deviation = 0;  // of the population
  double p90 = 0;
  double p99 = 0;
};

// The value below which `percent` (0 to 100) of the sorted values lie, interpolated linearly
// between neighbours (numpy's default). The values are not empty.
double PercentileOfSorted(const std::vector<double>& sorted, double percent);

Distribution Describe(std::vector<double> values);

}  // namespace swaa::tools::bench

#endif  // SWAA_TOOLS_BENCH_STATISTICS_H_
