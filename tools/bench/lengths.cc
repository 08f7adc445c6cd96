// Bench: how long prompts and outputs are.

#include "tools/bench/lengths.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace swaa::tools::bench {
namespace {

// More than any model's context; a sum of a few fits into 32 bits.
constexpr uint32_t kLongest = 1u << 28;

absl::Status Bad(const std::string& text, const std::string& why) {
  return absl::InvalidArgumentError(
      absl::StrCat("\"", text, "\" ", why,
                   "; write a length such as 512, a range such as 100:2000, or "
                   "lognormal:MEAN:SIGMA:MIN:MAX such as lognormal:800:0.6:64:4000"));
}

bool ParseLength(const std::string& text, uint32_t* length) {
  return absl::SimpleAtoi(text, length) && *length >= 1 && *length <= kLongest;
}

}  // namespace

absl::StatusOr<LengthDistribution> LengthDistribution::Parse(const std::string& text) {
  const std::vector<std::string> parts = absl::StrSplit(text, ':');
  const bool log_normal = parts[0] == "lognormal";
  if (parts.size() != 1 && parts.size() != 2 && !(log_normal && parts.size() == 5)) {
    return Bad(text, "is no distribution of lengths");
  }
  uint32_t min = 0;
  uint32_t max = 0;
  const std::string& min_part = log_normal && parts.size() == 5 ? parts[3] : parts[0];
  if (!ParseLength(min_part, &min) || !ParseLength(parts.back(), &max)) {
    return Bad(text, absl::StrCat("has a length that is no whole number from 1 to ", kLongest));
  }
  if (min > max) return Bad(text, "has its longest below its shortest");
  if (!log_normal) return LengthDistribution(Kind::kUniform, min, max);

  LengthDistribution lengths(Kind::kLogNormal, min, max);
  double mean = 0;
  if (!absl::SimpleAtod(parts[1], &mean) || !std::isfinite(mean) || mean <= 0) {
    return Bad(text, "has a mean that is no number above 0");
  }
  if (!absl::SimpleAtod(parts[2], &lengths.sigma_) || !std::isfinite(lengths.sigma_) ||
      lengths.sigma_ < 0) {
    return Bad(text, "has a sigma that is no number from 0 on");
  }
  lengths.log_mean_ = std::log(mean) - lengths.sigma_ * lengths.sigma_ / 2;
  return lengths;
}

uint32_t LengthDistribution::Draw(std::mt19937_64& generator) const {
  if (kind_ == Kind::kUniform) {
    return std::uniform_int_distribution<uint32_t>(min_, max_)(generator);
  }
  // The standard asks for a standard deviation above 0.
  const double normal = std::normal_distribution<double>(0, 1)(generator);
  const double length = std::round(std::exp(log_mean_ + sigma_ * normal));
  return static_cast<uint32_t>(
      std::clamp(length, static_cast<double>(min_), static_cast<double>(max_)));
}

}  // namespace swaa::tools::bench
