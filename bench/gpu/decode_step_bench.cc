// Decode steps of a whole model in random weights, without a server, beside the time that reading
// its weights, keys and values takes.

#include <memory>
#include <string>

#include "bench/gpu/driven_model.h"
#include "bench/gpu/gpu_bench.h"

namespace swaa::bench {

// Qwen3-4B's shape at 2048 tokens.
SWAA_GPU_BENCHMARK(decode_step) {
  constexpr int32_t kTokens = 2048, kMostRequests = 64, kSteps = 200;
  ModelConfig config = Qwen3Shape(36, 2560, 9728, 32);
  config.tied_embeddings = true;
  const std::unique_ptr<Device> device =
      MakeDrivenModel(config, /*ranks=*/1, kMostRequests, kTokens + 2 * kSteps);
  const double token_bytes = 4.0 * config.num_layers * config.kv_heads * config.head_dim;
  for (const int32_t batch : {1, 8, 32, kMostRequests}) {
    DrivenRequests requests(device.get(), config, batch);
    requests.Prefill(kTokens);
    const double bytes =
        static_cast<double>(device->info().weight_bytes) + batch * kTokens * token_bytes;
    ReportRow("decode_step", "batch " + std::to_string(batch), requests.Decode(kSteps),
              bytes / DeviceCeilings().read_bytes_per_second, "");
  }
  return true;
}

}  // namespace swaa::bench
