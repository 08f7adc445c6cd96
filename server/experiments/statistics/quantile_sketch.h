// Quantiles from logarithmic bins with a relative accuracy of 1 % (DDSketch: Masson, Rim and Lee,
// VLDB 2019), kept by groups of units, so that they merge exactly and have standard errors which
// count units, not requests.

#ifndef SWAA_SERVER_EXPERIMENTS_STATISTICS_QUANTILE_SKETCH_H_
#define SWAA_SERVER_EXPERIMENTS_STATISTICS_QUANTILE_SKETCH_H_

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "server/experiments/experiment_data.h"

namespace swaa::server {

inline constexpr double kSketchRelativeAccuracy = 0.01;

// The bin of a value: (gamma^(bin - 1), gamma^bin] with gamma = 1.01 / 0.99. Values below a
// nanosecond (1e-9) count as one; +infinity has kInfiniteBin. A CHECK refuses NaN.
int32_t SketchBin(double value);
// The value in the bin's middle, within 1 % of all its values.
double SketchBinValue(int32_t bin);

struct QuantileEstimate {
  bool enough = false;  // at least kLeastTailCount values are expected above the quantile
  double value = 0;     // may be +infinity: so many never got there
  // 95 % for a single look: from the quantiles one and the other side of p by 1.96 standard errors
  // of the share below `value`.
  double lower = 0;
  double upper = 0;
  // Of ln value, from that interval. Infinite if it is.
  double log_standard_error = 0;
  int64_t count = 0;
};

inline constexpr double kLeastTailCount = 20;

// The bins of one arm's groups, prepared for several quantiles.
class QuantileSketch {
 public:
  // Adds to group `group` in [0, kSketchGroups).
  void Add(int32_t group, const SketchBins& bins);

  int64_t count() const { return count_; }
  // p in (0, 1).
  QuantileEstimate Quantile(double p) const;

 private:
  struct Bin {
    int64_t count = 0;
    std::map<int32_t, int64_t> by_group;
  };

  // The value below which a share p of all lies, interpolated within a bin.
  double ValueAt(double p) const;
  // The standard error of the share of values in bins up to `bin`, counted by groups.
  double ShareStandardError(int32_t bin) const;

  std::map<int32_t, Bin> bins_;
  std::vector<int64_t> group_counts_ = std::vector<int64_t>(kSketchGroups);
  int64_t count_ = 0;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_EXPERIMENTS_STATISTICS_QUANTILE_SKETCH_H_
