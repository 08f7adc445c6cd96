// Bench: how long prompts and outputs are.

#ifndef SWAA_TOOLS_BENCH_LENGTHS_H_
#define SWAA_TOOLS_BENCH_LENGTHS_H_

#include <cstdint>
#include <random>
#include <string>

#include "absl/status/statusor.h"

namespace swaa::tools::bench {

// A distribution of lengths in tokens. Immutable; safe from any thread.
class LengthDistribution {
 public:
  // As a person writes it:
  //   512                                 always 512
  //   100:2000                            every length from 100 to 2000 equally likely
  //   lognormal:MEAN:SIGMA:MIN:MAX        log-normal of this mean, SIGMA the standard deviation of
  //                                       its logarithm, clamped to MIN..MAX
  // INVALID_ARGUMENT says what is wrong with it; it names no flag.
  static absl::StatusOr<LengthDistribution> Parse(const std::string& text);

  uint32_t Draw(std::mt19937_64& generator) const;

  // The longest length that can come.
  uint32_t max() const { return max_; }

 private:
  enum class Kind { kUniform, kLogNormal };
  LengthDistribution(Kind kind, uint32_t min, uint32_t max) : kind_(kind), min_(min), max_(max) {}

  Kind kind_;
  uint32_t min_;
  uint32_t max_;
  double log_mean_ = 0;
  double sigma_ = 0;
};

}  // namespace swaa::tools::bench

#endif  // SWAA_TOOLS_BENCH_LENGTHS_H_
