// Traffic of units that come back: the more active a unit, the more requests it sends, and its
// requests are alike, more active by day or by night. Arms do not differ unless an effect is
// planted.

#ifndef SWAA_TESTS_UNIT_SERVER_EXPERIMENTS_SIMULATED_TRAFFIC_H_
#define SWAA_TESTS_UNIT_SERVER_EXPERIMENTS_SIMULATED_TRAFFIC_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <random>
#include <string>
#include <vector>

#include "server/experiments/assignment.h"

namespace swaa::server {

// Sanitizers take ten times as long, and statistics do not need them twice.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr int kSimulationRuns = 40;
#else
inline constexpr int kSimulationRuns = 1000;
#endif

struct SimulatedUnit {
  double level = 0;  // of ln latency
  double liking = 0;
  int32_t group = 0;
  uint32_t arm_bucket = 0;
};

struct SimulatedRequest {
  int32_t unit = 0;
  double log_seconds = 0;
  bool liked = false;
};

// One run's traffic. A quarter of the variance of ln latency lies between units.
class SimulatedTraffic {
 public:
  SimulatedTraffic(int run, int num_units) : random_(static_cast<uint64_t>(run) * 7919 + 1) {
    const std::string salt = "run-" + std::to_string(run);
    double day = 0;
    double night = 0;
    for (int unit = 0; unit < num_units; ++unit) {
      const uint64_t hash = AssignmentHash(salt, "user-" + std::to_string(unit));
      units_.push_back({.level = 0.5 * normal_(random_),
                        .liking = 0.1 * std::exp(0.7 * normal_(random_) - 0.245),
                        .group = GroupOf(hash),
                        .arm_bucket = BucketOf(hash)});
      const double activity = std::exp(normal_(random_));
      const bool by_day = unit % 2 == 0;
      day_.push_back(day += by_day ? activity : 0.2 * activity);
      night_.push_back(night += by_day ? 0.2 * activity : activity);
    }
  }

  const SimulatedUnit& unit(const SimulatedRequest& request) const {
    return units_[static_cast<size_t>(request.unit)];
  }

  // `day`: how far the day is, in days since the start.
  SimulatedRequest Next(double day) {
    const double wave = std::sin(2 * std::numbers::pi * day);
    const std::vector<double>& active = wave >= 0 ? day_ : night_;
    const double drawn = uniform_(random_) * active.back();
    const auto found = std::upper_bound(active.begin(), active.end(), drawn);
    SimulatedRequest request;
    request.unit = static_cast<int32_t>(std::min<std::ptrdiff_t>(
        found - active.begin(), static_cast<std::ptrdiff_t>(active.size()) - 1));
    const SimulatedUnit& who = unit(request);
    request.log_seconds = who.level + 0.85 * normal_(random_) + 0.2 * wave;
    request.liked = uniform_(random_) < who.liking;
    return request;
  }

 private:
  std::mt19937_64 random_;
  std::normal_distribution<double> normal_;
  std::uniform_real_distribution<double> uniform_;
  std::vector<SimulatedUnit> units_;
  std::vector<double> day_;    // activity by day, summed up
  std::vector<double> night_;  // by night
};

}  // namespace swaa::server

#endif  // SWAA_TESTS_UNIT_SERVER_EXPERIMENTS_SIMULATED_TRAFFIC_H_
