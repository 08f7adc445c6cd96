// Bench: outcomes that are planted on the requests of an experiment, to see that its report finds
// them.

#ifndef SWAA_TOOLS_BENCH_OUTCOMES_H_
#define SWAA_TOOLS_BENCH_OUTCOMES_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "absl/status/statusor.h"
#include "tools/bench/record.h"

namespace swaa::tools::bench {

// A metric that is 1 with this chance, by arm, and else 0.
struct PlantedOutcome {
  std::string metric;
  std::map<std::string, double> chance_by_arm;
};

// Parses METRIC:ARM=CHANCE,ARM=CHANCE,...; empty: none. INVALID_ARGUMENT says what is wrong,
// without the flag's name.
absl::StatusOr<PlantedOutcome> ParsePlantedOutcome(const std::string& text);

// Records an outcome for every completed request that was in an arm of `planted`, drawn from the
// seed and the request's place in `records`; how many. The first failure ends it.
absl::StatusOr<int64_t> RecordPlantedOutcomes(const PlantedOutcome& planted, uint64_t seed,
                                              const std::vector<RequestRecord>& records,
                                              const std::shared_ptr<grpc::Channel>& channel);

}  // namespace swaa::tools::bench

#endif  // SWAA_TOOLS_BENCH_OUTCOMES_H_
