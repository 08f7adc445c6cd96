// Bench: the flags of `swaa bench`.

#ifndef SWAA_TOOLS_BENCH_OPTIONS_H_
#define SWAA_TOOLS_BENCH_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "tools/bench/lengths.h"
#include "tools/bench/outcomes.h"
#include "tools/bench/recipe_mix.h"
#include "tools/bench/summary.h"
#include "tools/connection.h"

namespace swaa::tools::bench {

struct BenchOptions {
  Connection connection;
  std::vector<RecipeArm> arms;  // empty: the server's default recipe
  std::optional<int64_t> num_requests;
  absl::Duration duration = absl::InfiniteDuration();  // no request is sent after it
  double request_rate = 0;                             // per second; 0: closed loop
  double burstiness = 1;
  bool mixed = false;  // all recipes into one batch; else they take turns
  int max_in_flight = 0;
  int64_t warmup_requests = 0;
  LengthDistribution prompt_tokens;
  LengthDistribution output_tokens;
  bool text_prompts = false;
  uint32_t shared_prefix_tokens = 0;
  uint32_t shared_prefixes = 1;
  uint64_t seed = 0;
  std::string cache_salt;  // of every request
  bool ignore_eos = true;
  float temperature = 0;
  GoodputTargets goodput;
  absl::Duration deadline = absl::InfiniteDuration();  // of each request
  bool retry = false;
  int connections = 1;
  uint64_t experiment_units = 0;  // requests are of so many units at random; 0: of none
  PlantedOutcome outcome;
  absl::Duration poll_interval = absl::Seconds(1);
  std::string json_file;    // empty: none
  bool detailed = false;    // with json_file: every request
  std::string plot_folder;  // empty: none
};

// Whether recipes are measured one after the other. In one batch each waits for the others' work,
// so that latencies tell nothing of what a recipe gains; an open loop is one batch.
inline bool InTurns(const BenchOptions& options) {
  return !options.mixed && options.request_rate == 0 && options.arms.size() > 1;
}

// Every flag of the command; those of FlagPrefix() are declared with that prefix.
std::vector<std::string> BenchFlagNames();
std::string BenchFlagPrefix();

// INVALID_ARGUMENT names the flag, its value and the way out.
absl::StatusOr<BenchOptions> BenchOptionsFromFlags();

}  // namespace swaa::tools::bench

#endif  // SWAA_TOOLS_BENCH_OPTIONS_H_
