// What the statistics promise, on simulated traffic with fixed seeds: how often they see what is
// not there, and how often what is.

#include <array>
#include <cmath>
#include <cstdint>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "server/experiments/statistics/always_valid.h"
#include "server/experiments/statistics/paired_difference.h"
#include "server/experiments/statistics/power.h"
#include "server/experiments/statistics/quantile_sketch.h"
#include "server/experiments/statistics/ratio_estimate.h"
#include "server/experiments/statistics/sample_ratio.h"
#include "tests/unit/server/experiments/simulated_traffic.h"

namespace swaa::server {
namespace {

constexpr double kAlpha = 0.05;
constexpr int64_t kBurnInUnits = 100;

// Bounds are for 1,000 runs; fewer get four standard deviations more room.
void ExpectOfThousand(const std::string& what, int count, double low, double high,
                      int runs = kSimulationRuns) {
  const double share = 1000.0 * count / runs;
  const double slack = runs >= 400 ? 0 : 4000 * std::sqrt(0.08 * 0.92 / runs);
  std::cout << "  " << what << ": " << share << " of 1,000\n";
  EXPECT_GE(share, low - slack) << what;
  EXPECT_LE(share, high + slack) << what;
}

// One metric of two arms: sums by group, and over requests as if these were independent.
struct MetricState {
  std::array<std::vector<Sum>, 2> groups = {std::vector<Sum>(kUnitGroups),
                                            std::vector<Sum>(kUnitGroups)};
  std::array<double, 2> n{}, sum{}, squares{};
  bool rejected = false, naive = false, by_request = false, stopped = false;

  void Add(int arm, int32_t group, double value) {
    const size_t a = static_cast<size_t>(arm);
    groups[a][static_cast<size_t>(group)] += {1, value};
    n[a] += 1;
    sum[a] += value;
    squares[a] += value * value;
  }
  EffectEstimate Estimate(bool unequal) const {
    return Difference(EstimateRatio(groups[1]), EstimateRatio(groups[0]), unequal);
  }
  double RequestStandardError() const {
    double variance = 0;
    for (const size_t a : {0, 1}) {
      const double mean = sum[a] / n[a];
      variance += (squares[a] / n[a] - mean * mean) / n[a];
    }
    return std::sqrt(variance);
  }
  // Rates: enough ones and zeros.
  bool Enough() const {
    for (const size_t a : {0, 1}) {
      if (sum[a] < 25 || n[a] - sum[a] < 25) return false;
    }
    return true;
  }
  void Look(double tau, bool unequal) {
    const EffectEstimate estimate = Estimate(unequal);
    const double size = std::abs(estimate.effect);
    const double error = estimate.standard_error;
    rejected = rejected || size > AlwaysValidHalfWidth(error, tau, kAlpha);
    naive = naive || size > 1.96 * error;
    by_request = by_request || size > AlwaysValidHalfWidth(RequestStandardError(), tau, kAlpha);
    stopped = stopped || estimate.effect > OneSidedMargin(error, tau, 0.01);
  }
};

struct Case {
  std::string name;
  uint32_t control_buckets;  // the rest is the treatment's
  double tau;
  int metric;  // 0: ln seconds, 1: seconds, 2: liked
  int rejected = 0, naive = 0, by_request = 0, stopped = 0, single_look = 0;
  double least_x = 1e9, most_x = 0;
};

// Everything that one run of 40,000 requests tells, looked at 400 times.
void SimulateRun(int run, std::vector<Case>* cases) {
  constexpr int kUnits = 4000;
  constexpr int kRequests = 40000;
  constexpr int kLook = 100;
  SimulatedTraffic traffic(run, kUnits);
  std::vector<MetricState> states(cases->size());
  std::vector<bool> seen(kUnits);
  std::vector<std::array<int64_t, 2>> units(cases->size());
  for (int i = 1; i <= kRequests; ++i) {
    const SimulatedRequest request = traffic.Next(7.0 * i / kRequests);
    const SimulatedUnit& unit = traffic.unit(request);
    const std::array<double, 3> values = {request.log_seconds, std::exp(request.log_seconds),
                                          request.liked ? 1.0 : 0.0};
    const bool first = !seen[static_cast<size_t>(request.unit)];
    seen[static_cast<size_t>(request.unit)] = true;
    for (size_t c = 0; c < cases->size(); ++c) {
      const Case& each = (*cases)[c];
      const int arm = unit.arm_bucket < each.control_buckets ? 0 : 1;
      units[c][static_cast<size_t>(arm)] += first;
      states[c].Add(arm, unit.group, values[static_cast<size_t>(each.metric)]);
      const bool due = i % kLook == 0 && std::min(units[c][0], units[c][1]) >= kBurnInUnits;
      if (due && (each.metric != 2 || states[c].Enough())) {
        states[c].Look(each.tau, each.control_buckets != kBuckets / 2);
      }
    }
  }
  for (size_t c = 0; c < cases->size(); ++c) {
    Case& each = (*cases)[c];
    const EffectEstimate last = states[c].Estimate(each.control_buckets != kBuckets / 2);
    const double x = each.tau * each.tau / (last.standard_error * last.standard_error);
    each.least_x = std::min(each.least_x, x);
    each.most_x = std::max(each.most_x, x);
    each.rejected += states[c].rejected;
    each.naive += states[c].naive;
    each.by_request += states[c].by_request;
    each.stopped += states[c].stopped;
    each.single_look += SingleLookPValue(last) < kAlpha;
  }
}

TEST(SimulationTest, NothingIsSeenWhereNothingIs) {
  std::vector<Case> cases = {
      {"50:50, ln seconds", 5000, 0.15, 0}, {"50:50, seconds", 5000, 0.25, 1},
      {"50:50, liked", 5000, 0.025, 2},     {"90:10, ln seconds", 9000, 0.25, 0},
      {"90:10, seconds", 9000, 0.45, 1},    {"90:10, liked", 9000, 0.04, 2},
  };
  for (int run = 0; run < kSimulationRuns; ++run) SimulateRun(run, &cases);
  for (const Case& each : cases) {
    std::cout << each.name << " (tau^2 / SE^2 at the end " << each.least_x << " to " << each.most_x
              << ")\n";
    ExpectOfThousand("always valid, looked at 400 times", each.rejected, 0, 50);
    ExpectOfThousand("guardrail at .01, looked at 400 times", each.stopped, 0, 10);
    if (each.control_buckets == 5000) {
      ExpectOfThousand("single look at the end", each.single_look, 37, 64);
    }
    // What the others would have said: the simulation can tell right from wrong.
    ExpectOfThousand("1.96 standard errors, looked at 400 times", each.naive, 100, 1000);
    ExpectOfThousand("always valid, but by requests", each.by_request, 90, 1000);
  }
}

TEST(SimulationTest, PlantedDifferencesAreSeenAsPlanned) {
  constexpr int kPlannedUnits = 2000;  // for 80 % with a single look
  // A unit has N = 1 to 5 requests with levels u + e: the variance of sum (y - mean) over them is
  // Var(u) E[N^2] + Var(e) E[N].
  constexpr double kMeanRequests = 3;
  const double variance = 0.25 * 11 + 0.75 * kMeanRequests;
  const double error =
      std::sqrt(2 * variance / (kMeanRequests * kMeanRequests * kPlannedUnits / 2.0));
  const double effect = error * 0.05 / PlannedStandardError(0.05, kAlpha);
  int single = 0, by_planned = 0, by_half_more = 0, by_twice = 0;
  double further = 0;
  for (int run = 0; run < kSimulationRuns; ++run) {
    std::mt19937_64 random(static_cast<uint64_t>(run) + 100003);
    std::normal_distribution<double> normal;
    MetricState state;
    for (int unit = 1; unit <= 2 * kPlannedUnits; ++unit) {
      const uint64_t hash = AssignmentHash("power", std::to_string(random()));
      const int arm = BucketOf(hash) < kBuckets / 2 ? 0 : 1;
      const double level = 0.5 * normal(random);
      const int requests = 1 + static_cast<int>(random() % 5);
      for (int i = 0; i < requests; ++i) {
        state.Add(arm, GroupOf(hash), level + std::sqrt(0.75) * normal(random) + arm * effect);
      }
      if (unit % 40 == 0 && unit >= 4 * kBurnInUnits) state.Look(effect, false);
      if (unit == kPlannedUnits / 2) {
        further += static_cast<double>(FurtherUnits(
                       kPlannedUnits / 2, state.Estimate(false).standard_error, effect, kAlpha)) /
                   kSimulationRuns;
      }
      if (unit == kPlannedUnits) single += SingleLookPValue(state.Estimate(false)) < kAlpha;
      if (unit == kPlannedUnits) by_planned += state.rejected;
      if (unit == kPlannedUnits * 3 / 2) by_half_more += state.rejected;
      if (unit == kPlannedUnits * 2) by_twice += state.rejected;
    }
  }
  ExpectOfThousand("single look at the planned number", single, 770, 830);
  ExpectOfThousand("always valid by the planned number", by_planned, 490, 600);
  ExpectOfThousand("always valid by 1.5 times as many", by_half_more, 720, 810);
  ExpectOfThousand("always valid by twice as many", by_twice, 860, 930);
  std::cout << "  further units at half the planned number: " << further << "\n";
  EXPECT_NEAR(further, 1.6 * kPlannedUnits - kPlannedUnits / 2.0, 0.05 * kPlannedUnits);
}

// The first look, of one every 100 units, at which the sample ratio does not fit; 0: none.
int UnitsUntilMismatch(uint64_t seed, double share, int units) {
  std::mt19937_64 random(seed);
  std::binomial_distribution<int> control(100, share);
  std::vector<uint64_t> counts(2);
  for (int seen = 100; seen <= units; seen += 100) {
    const int more = control(random);
    counts[0] += static_cast<uint64_t>(more);
    counts[1] += static_cast<uint64_t>(100 - more);
    if (LogSampleRatioPValue(counts, {0.5, 0.5}) < std::log(kSampleRatioAlpha)) return seen;
  }
  return 0;
}

TEST(SimulationTest, TheSampleRatioMaySoundAnAlarmOnlyForAReason) {
  int alarms = 0;
  int seen = 0;
  for (int run = 0; run < kSimulationRuns; ++run) {
    const uint64_t seed = static_cast<uint64_t>(run) + 31;
    alarms += UnitsUntilMismatch(seed, 0.5, 100000) > 0;
    seen += UnitsUntilMismatch(seed, 0.52, 20000) > 0;
  }
  ExpectOfThousand("false alarms in 100,000 units, looked at 1,000 times", alarms, 0, 5);
  ExpectOfThousand("52:48 seen within 20,000 units", seen, 950, 1000);
}

TEST(SimulationTest, QuantilesHaveErrorsThatCountUnits) {
  constexpr std::array<double, 4> kQuantiles = {0.5, 0.9, 0.95, 0.99};
  constexpr int kRuns = kSimulationRuns / 2;
  std::array<int, 4> rejected{}, as_if_independent{};
  for (int run = 0; run < kRuns; ++run) {
    SimulatedTraffic traffic(run + 5000, 4000);
    // [grouping][arm][group]: by unit, and as if requests were independent.
    std::array<std::array<std::vector<SketchBins>, 2>, 2> bins;
    for (auto& arms : bins) arms.fill(std::vector<SketchBins>(kSketchGroups));
    for (int i = 0; i < 40000; ++i) {
      const SimulatedRequest request = traffic.Next(7.0 * i / 40000);
      const SimulatedUnit& unit = traffic.unit(request);
      const size_t arm = unit.arm_bucket < kBuckets / 2 ? 0 : 1;
      const int32_t bin = SketchBin(std::exp(request.log_seconds));
      ++bins[0][arm][static_cast<size_t>(unit.group) / 4][bin];
      ++bins[1][arm][static_cast<size_t>(i % kSketchGroups)][bin];
    }
    std::array<std::array<QuantileSketch, 2>, 2> sketches;
    for (const size_t grouping : {0, 1}) {
      for (const size_t arm : {0, 1}) {
        for (int32_t group = 0; group < kSketchGroups; ++group) {
          sketches[grouping][arm].Add(group, bins[grouping][arm][static_cast<size_t>(group)]);
        }
      }
    }
    const auto differ = [](const std::array<QuantileSketch, 2>& arms, double p) {
      const QuantileEstimate a = arms[0].Quantile(p);
      const QuantileEstimate b = arms[1].Quantile(p);
      return std::abs(std::log(a.value / b.value)) >
             1.96 * std::hypot(a.log_standard_error, b.log_standard_error);
    };
    for (size_t q = 0; q < kQuantiles.size(); ++q) {
      rejected[q] += differ(sketches[0], kQuantiles[q]);
      as_if_independent[q] += differ(sketches[1], kQuantiles[q]);
    }
  }
  for (size_t q = 0; q < kQuantiles.size(); ++q) {
    const std::string name = "p" + std::to_string(kQuantiles[q] * 100).substr(0, 2);
    ExpectOfThousand(name, rejected[q], 30, 80, kRuns);
    ExpectOfThousand(name + " as if requests were independent", as_if_independent[q], 90, 1000,
                     kRuns);
  }
}

TEST(SimulationTest, PairsOfASwitchbackAreIndependentEnough) {
  constexpr int kPairs = 50;
  int single_12 = 0, single = 0, sequential = 0;
  for (int run = 0; run < kSimulationRuns; ++run) {
    std::mt19937_64 random(static_cast<uint64_t>(run) + 77);
    std::normal_distribution<double> normal;
    double load = normal(random);
    std::vector<double> differences;
    bool rejected = false;
    for (int pair = 0; pair < kPairs; ++pair) {
      // Latency follows a load that remembers: AR(1) with 0.7 a window.
      std::array<double, 2> windows;
      for (double& window : windows) {
        load = 0.7 * load + std::sqrt(1 - 0.49) * normal(random);
        window = load + 0.3 * normal(random);
      }
      const bool flip = (random() & 1) != 0;
      differences.push_back(flip ? windows[0] - windows[1] : windows[1] - windows[0]);
      const EffectEstimate estimate = PairedDifference(differences);
      const int64_t pairs = pair + 1;
      if (pairs == kLeastPairs) single_12 += SingleLookPValue(estimate) < kAlpha;
      rejected =
          rejected || (pairs >= kLeastPairs &&
                       std::abs(estimate.effect) >
                           AlwaysValidHalfWidth(estimate.standard_error, /*tau=*/0.4, kAlpha));
    }
    single += SingleLookPValue(PairedDifference(differences)) < kAlpha;
    sequential += rejected;
  }
  ExpectOfThousand("t after 12 pairs", single_12, 35, 65);
  ExpectOfThousand("t after 50 pairs", single, 35, 65);
  ExpectOfThousand("always valid, looked at after each pair", sequential, 0, 50);
}

}  // namespace
}  // namespace swaa::server
