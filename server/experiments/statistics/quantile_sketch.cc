// Bins, quantiles and their clustered standard errors.

#include "server/experiments/statistics/quantile_sketch.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "server/experiments/statistics/ratio_estimate.h"

namespace swaa::server {
namespace {

constexpr double kGamma = (1 + kSketchRelativeAccuracy) / (1 - kSketchRelativeAccuracy);
constexpr double kLeastValue = 1e-9;
constexpr double kZ = 1.959963984540054;  // of 95 %, two-sided

double LogGamma() {
  static const double kLogGamma = std::log(kGamma);
  return kLogGamma;
}

}  // namespace

int32_t SketchBin(double value) {
  SWAA_CHECK(!std::isnan(value));
  if (value == std::numeric_limits<double>::infinity()) return kInfiniteBin;
  return static_cast<int32_t>(std::ceil(std::log(std::max(value, kLeastValue)) / LogGamma()));
}

double SketchBinValue(int32_t bin) {
  if (bin == kInfiniteBin) return std::numeric_limits<double>::infinity();
  return std::exp(bin * LogGamma()) * 2 / (1 + kGamma);
}

void QuantileSketch::Add(int32_t group, const SketchBins& bins) {
  SWAA_CHECK(0 <= group && group < kSketchGroups) << group;
  for (const auto& [bin, count] : bins) {
    Bin& into = bins_[bin];
    into.count += count;
    into.by_group[group] += count;
    group_counts_[static_cast<size_t>(group)] += count;
    count_ += count;
  }
}

double QuantileSketch::ValueAt(double p) const {
  const double rank = std::clamp(p, 0.0, 1.0) * static_cast<double>(count_);
  double below = 0;
  for (const auto& [bin, content] : bins_) {
    const double count = static_cast<double>(content.count);
    if (below + count >= rank && count > 0) {
      if (bin == kInfiniteBin) return std::numeric_limits<double>::infinity();
      const double fraction = std::max(0.0, rank - below) / count;
      return std::exp((bin - 1 + fraction) * LogGamma());
    }
    below += count;
  }
  return SketchBinValue(bins_.rbegin()->first);
}

double QuantileSketch::ShareStandardError(int32_t bin) const {
  std::vector<GroupTotals> totals(kSketchGroups);
  for (size_t group = 0; group < totals.size(); ++group) {
    totals[group].denominator = static_cast<double>(group_counts_[group]);
  }
  for (auto it = bins_.begin(); it != bins_.end() && it->first <= bin; ++it) {
    for (const auto& [group, count] : it->second.by_group) {
      totals[static_cast<size_t>(group)].numerator += static_cast<double>(count);
    }
  }
  const RatioEstimate share = EstimateRatio(totals);
  return share.usable() ? std::sqrt(share.variance) : std::numeric_limits<double>::infinity();
}

QuantileEstimate QuantileSketch::Quantile(double p) const {
  SWAA_CHECK(p > 0 && p < 1) << p;
  QuantileEstimate estimate{.count = count_};
  if (static_cast<double>(count_) * (1 - p) < kLeastTailCount) return estimate;
  estimate.enough = true;
  estimate.value = ValueAt(p);
  const double share_error = ShareStandardError(SketchBin(estimate.value));
  estimate.lower = ValueAt(p - kZ * share_error);
  // Beyond all values there is nothing known.
  estimate.upper = p + kZ * share_error >= 1 ? std::numeric_limits<double>::infinity()
                                             : ValueAt(p + kZ * share_error);
  estimate.log_standard_error = std::log(estimate.upper / estimate.lower) / (2 * kZ);
  if (std::isnan(estimate.log_standard_error)) {
    estimate.log_standard_error = std::numeric_limits<double>::infinity();
  }
  return estimate;
}

}  // namespace swaa::server
