// Bench: what a run must know of the server before it starts.

#ifndef SWAA_TOOLS_BENCH_SERVER_FACTS_H_
#define SWAA_TOOLS_BENCH_SERVER_FACTS_H_

#include <memory>
#include <string>

#include <grpcpp/grpcpp.h>

#include "absl/status/statusor.h"
#include "swaa/v1/control_service.pb.h"
#include "tools/bench/options.h"

namespace swaa::tools::bench {

struct ServerFacts {
  v1::GetModelInfoResponse model;
  v1::ListRecipesResponse recipes;
};

// UNAVAILABLE, with what to do, where no server answers within five seconds.
absl::StatusOr<ServerFacts> AskServer(const std::shared_ptr<grpc::Channel>& channel,
                                      const std::string& address);

// Fills in the server's default recipe where the options name none, and checks the options against
// the server: NOT_FOUND for a recipe that it does not have, OUT_OF_RANGE for lengths beyond the
// model's context.
absl::Status Settle(const ServerFacts& facts, BenchOptions* options);

// How many tokens a word of the prompts' prose has under the server's tokenizer, by asking it.
absl::StatusOr<double> MeasureTokensPerWord(const std::shared_ptr<grpc::Channel>& channel);

}  // namespace swaa::tools::bench

#endif  // SWAA_TOOLS_BENCH_SERVER_FACTS_H_
