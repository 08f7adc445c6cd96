// Bench: a load, from its plan to its records.

#ifndef SWAA_TOOLS_BENCH_LOAD_H_
#define SWAA_TOOLS_BENCH_LOAD_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "tools/bench/monitor.h"
#include "tools/bench/options.h"
#include "tools/bench/prompts.h"
#include "tools/bench/record.h"

namespace swaa::tools::bench {

// Makes the requests of a run. Immutable.
class RequestMaker {
 public:
  // `options.arms` is not empty.
  RequestMaker(const BenchOptions& options, PromptMaker prompts)
      : options_(options), prompts_(std::move(prompts)) {}

  // Request number `index` of the run, the arm's own number `index_in_arm`: a pure function of all
  // three. Lengths follow from index_in_arm alone, so that every arm is asked for the same ones and
  // ratios between arms compare like with like; what a prompt says follows from `index`, so that no
  // two are the same.
  v1::GenerateRequest Make(uint64_t index, size_t arm, uint64_t index_in_arm) const;

 private:
  const BenchOptions& options_;
  const PromptMaker prompts_;
};

// How requests are sent.
struct LoadPlan {
  std::string title;  // of the progress bar
  std::optional<int64_t> num_requests;
  absl::Duration duration = absl::InfiniteDuration();
  double request_rate = 0;  // 0: closed loop
  int max_in_flight = 1;
  uint64_t first_index = 0;  // of the requests
  // This recipe alone, from its request of this number on; absent: the mix.
  std::optional<size_t> arm;
  uint64_t first_index_in_arm = 0;
};

struct LoadResult {
  std::vector<RequestRecord> records;
  std::vector<LoadSample> samples;
  double duration_seconds = 0;      // from the start to the last stream's end
  std::vector<double> arm_seconds;  // of each recipe's turns; empty: they shared one batch
  bool interrupted = false;
};

// Runs each recipe of options.arms alone, twice, the second time in reverse order, with its share
// of the plan's requests and time; returns when every stream has ended.
LoadResult RunInTurns(const LoadPlan& plan, const BenchOptions& options, const RequestMaker& maker,
                      const std::vector<std::shared_ptr<grpc::Channel>>& channels);

// Runs the plan, and returns when every stream has ended.
LoadResult RunLoad(const LoadPlan& plan, const BenchOptions& options, const RequestMaker& maker,
                   const std::vector<std::shared_ptr<grpc::Channel>>& channels);

}  // namespace swaa::tools::bench

#endif  // SWAA_TOOLS_BENCH_LOAD_H_
