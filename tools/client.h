// Tools: a thin client of the server, shared by the subcommands that talk to one.

#ifndef SWAA_TOOLS_CLIENT_H_
#define SWAA_TOOLS_CLIENT_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "swaa/v1/generation.pb.h"
#include "swaa/v1/inference_service.grpc.pb.h"
#include "swaa/v1/recipe.pb.h"
#include "tools/connection.h"

namespace swaa::tools {

// What came back of one request.
struct Generation {
  v1::Accepted accepted;
  std::string text;
  std::vector<v1::TokenInfo> tokens;
  std::vector<absl::Duration> token_times;  // since sending, as each came
  v1::Finished finished;
};

// Blocking; one thread at a time.
class Client {
 public:
  // Connects when first used. Requests of up to 16 MiB are kept for gRPC's retries.
  explicit Client(const Connection& connection);

  // Sends a request and reads its stream; `on_delta` gets each delta as it comes. An error's
  // message names the server's reason.
  absl::StatusOr<Generation> Generate(const v1::GenerateRequest& request,
                                      const std::function<void(const v1::TokenDelta&)>& on_delta);

 private:
  std::unique_ptr<v1::InferenceService::Stub> stub_;
};

// A call's end with the server's reason, or, where no server was reached, with how to start one.
absl::Status ToStatus(const grpc::Status& status, const grpc::ClientContext& call);

// Layers as a person writes them: odd, even, all, 1,3,5 or first:step.
absl::StatusOr<v1::LayerSet> ParseLayers(const std::string& text);

// The recipe's name, or what one in full is called everywhere: w512-k16.
std::string RecipeNameOf(const v1::GenerateRequest& request, const Generation& generation);

// What a request cost and saved, in one line.
std::string CostLine(const v1::GenerateRequest& request, const Generation& generation);

// The names of the flags that every client has: its connection's, recipe in name or in parts,
// sampling.
std::vector<std::string> ClientFlagNames();

// A request with the recipe, sampling and stopping that the flags say; no input yet.
// INVALID_ARGUMENT names the flag.
absl::StatusOr<v1::GenerateRequest> RequestFromFlags();

// An error as a command line tool says it; returns the exit code 1.
int Fail(const std::string& command, const absl::Status& status);

}  // namespace swaa::tools

#endif  // SWAA_TOOLS_CLIENT_H_
