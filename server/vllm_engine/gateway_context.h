// What the handlers of a gateway's calls reach.

#ifndef SWAA_SERVER_VLLM_ENGINE_GATEWAY_CONTEXT_H_
#define SWAA_SERVER_VLLM_ENGINE_GATEWAY_CONTEXT_H_

#include <functional>
#include <memory>

#include "server/generate/serving_context.h"
#include "server/generate/steady_time.h"
#include "server/vllm_engine/gateway_calls.h"
#include "server/vllm_engine/kv_event_log.h"
#include "server/vllm_engine/recipe_tail.h"
#include "server/vllm_engine/tokenizer_archive.h"
#include "swaa/v1/inference_service.grpc.pb.h"

namespace swaa::server {

// Made before the first call and destroyed after the last.
struct GatewayContext {
  // All outlive it; the model is loaded.
  GatewayContext(ServingContext* serving, const TokenizerData* tokenizer_data,
                 KvEventLog* kv_events)
      : serving(serving),
        kv_events(kv_events),
        tail(*serving->model.tokenizer),
        tokenizer(tokenizer_data, serving->engine_options.max_context_tokens) {}

  ServingContext* const serving;
  KvEventLog* const kv_events;
  RecipeTail tail;
  TokenizerArchive tokenizer;
  std::function<bool()> is_ready;  // new requests are welcome; any thread
  // This server's own InferenceService, within the process: a gateway's request goes the same way
  // as everybody's, with the same limits, refusals, metrics and log.
  std::unique_ptr<v1::InferenceService::Stub> inference;
  GatewayCalls calls;
  const absl::Time start = SteadyNow();
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_VLLM_ENGINE_GATEWAY_CONTEXT_H_
