// Experiments with planted differences, recorded as a server records them.

#ifndef SWAA_TESTS_UNIT_SERVER_EXPERIMENTS_SIMULATED_EXPERIMENT_H_
#define SWAA_TESTS_UNIT_SERVER_EXPERIMENTS_SIMULATED_EXPERIMENT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "server/experiments/experiment_data.h"
#include "server/experiments/experiment_set.h"

namespace swaa::server {

inline constexpr int64_t kSimulationStartMs = 1'764'000'000'000;
inline constexpr int64_t kSimulationEndMs = kSimulationStartMs + int64_t{14} * 24 * 3600 * 1000;

// What an arm does to a request that the arms compute differently.
struct ArmEffect {
  double cost = 1;     // times control's device seconds
  double liking = 0;   // added to the share of liked answers
  double latency = 1;  // times control's latencies
  double errors = 0;   // added to the share of errors
};

struct SimulationOptions {
  // As text; recipes full, window (W = 2048) and sinks exist.
  std::string experiment;
  std::vector<ArmEffect> effects;
  int units = 4000;
  int requests = 20000;
  double triggered = 0.5;  // share of requests that arms compute differently
  int files = 1;           // replicas that serve the requests by turns
  // Of arm 1's units, how many are lost before they are recorded.
  double lost_units = 0;
  // Whether effects last for a unit's first day only.
  bool novelty = false;
  int seed = 1;
};

struct Simulation {
  ActiveExperiment experiment;
  std::vector<ExperimentData> files;
};

Simulation Simulate(const SimulationOptions& options);

// What a merged report is made of.
ExperimentData Merge(const std::vector<ExperimentData>& files);

}  // namespace swaa::server

#endif  // SWAA_TESTS_UNIT_SERVER_EXPERIMENTS_SIMULATED_EXPERIMENT_H_
