// A gateway's request as requests of swaa.v1.

#ifndef SWAA_SERVER_VLLM_ENGINE_GATEWAY_REQUEST_H_
#define SWAA_SERVER_VLLM_ENGINE_GATEWAY_REQUEST_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/generate/serving_model.h"
#include "server/vllm_engine/recipe_tail.h"
#include "swaa/v1/generation.pb.h"
#include "vllm/grpc/engine/vllm_engine.pb.h"

namespace swaa::server {

namespace vllm_pb = ::vllm::grpc::engine;

// Most samples of one request.
inline constexpr uint32_t kMaxSamples = 64;

struct GatewayRequest {
  std::string id;                            // the gateway's
  bool stream = false;                       // chunks as tokens come
  bool prompt_logprobs = false;              // are wanted
  std::vector<v1::GenerateRequest> samples;  // at least one
  // Stops of every chat with this model, which the request has not asked for: no match is told.
  std::vector<int32_t> silent_stops;
};

// Translates and refuses what swaa.v1 has no field for (INVALID_ARGUMENT, by name); all else is
// InferenceService's to judge. A recipe at the prompt's end (recipe_tail.h) is cut off. Takes the
// prompt's tokens out of `request`. `experiment_unit` as the metadata have it; empty: the request
// id may name one.
absl::StatusOr<GatewayRequest> ReadGatewayRequest(vllm_pb::GenerateRequest* request,
                                                  const std::string& experiment_unit,
                                                  const ServingModel& model,
                                                  const RecipeTail& tail);

// The unit that a request id names: what stands between "unit=" and the id's own ending, as the
// gateway makes them of a header ("unit=alice-01890a5d-ac96-774b-bcce-b302099a8057"). Empty: none.
std::string UnitOfRequestId(const std::string& id);

// The value of the list member `swaa` of a W3C tracestate header; empty: it has none.
std::string UnitOfTraceState(const std::string& header);

}  // namespace swaa::server

#endif  // SWAA_SERVER_VLLM_ENGINE_GATEWAY_REQUEST_H_
