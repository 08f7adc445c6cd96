// Bench: statistics of a sample.

#include "tools/bench/statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"

namespace swaa::tools::bench {

double PercentileOfSorted(const std::vector<double>& sorted, double percent) {
  SWAA_CHECK(!sorted.empty());
  SWAA_CHECK(percent >= 0 && percent <= 100) << percent;
  const double position = percent / 100 * static_cast<double>(sorted.size() - 1);
  const size_t below = static_cast<size_t>(position);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  const double part = position - static_cast<double>(below);
  return sorted[below] + part * (sorted[above] - sorted[below]);
}

Distribution Describe(std::vector<double> values) {
  Distribution result;
  result.count = values.size();
  if (values.empty()) return result;
  std::sort(values.begin(), values.end());
  const double count = static_cast<double>(values.size());
  result.mean = std::accumulate(values.begin(), values.end(), 0.0) / count;
  double squares = 0;
  for (double value : values) squares += (value - result.mean) * (value - result.mean);
  result.standard_deviation = std::sqrt(squares / count);
  result.median = PercentileOfSorted(values, 50);
  result.p90 = PercentileOfSorted(values, 90);
  result.p99 = PercentileOfSorted(values, 99);
  return result;
}

}  // namespace swaa::tools::bench
