// Decode steps of a whole model in random weights, driven by hand and without a server, beside the
// time that reading its weights, keys and values takes.

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bench/gpu/gpu_bench.h"
#include "engine/checkpoint/tensor_weights.h"
#include "engine/model/model_device.h"

namespace swaa::bench {
namespace {

constexpr int32_t kTokens = 2048, kMostRequests = 64, kSteps = 200;

ModelConfig Qwen3Of4B() {
  ModelConfig config;
  config.architecture = "qwen3";
  config.num_layers = 36;
  config.hidden = 2560;
  config.ffn_width = 9728;
  config.heads = 32;
  config.kv_heads = 8;
  config.head_dim = 128;
  config.vocab_size = 151936;
  config.max_context_tokens = 40960;
  config.norm_epsilon = 1e-6f;
  config.rope_theta = 1e6;
  config.qk_norm = true;
  config.tied_embeddings = true;
  return config;
}

// Requests on a device, driven by hand.
class Requests {
 public:
  Requests(Device* device, int32_t layers, int32_t count)
      : device_(device), layers_(layers), lengths_(count) {}

  void Prefill() {
    for (int32_t slot = 0; slot < static_cast<int32_t>(lengths_.size()); ++slot) {
      Step step = MakeStep(slot, 1, kTokens);
      for (int32_t i = 0; i < kTokens; ++i) step.tokens[i] = i * 37 % 50000;
      SetUp(slot, &step);
      device_->Submit(std::move(step));
      Collect();
    }
  }

  // The median of so many steps of all requests, two in flight.
  double Decode(int32_t steps) {
    const auto submit = [&] {
      device_->Submit(MakeStep(0, static_cast<int32_t>(lengths_.size()), 1));
    };
    std::vector<double> seconds;
    submit();
    for (int32_t i = 1; i < steps; ++i) {
      submit();
      seconds.push_back(Collect());
    }
    Collect();
    std::nth_element(seconds.begin(), seconds.begin() + seconds.size() / 2, seconds.end());
    return seconds[seconds.size() / 2];
  }

 private:
  // The next `tokens` of requests first .. first + count - 1, drawn ones, and draws after each.
  Step MakeStep(int32_t first, int32_t count, int32_t tokens) {
    Step step;
    step.id = ++id_;
    step.tokens.assign(count * tokens, kDrawnToken);
    for (int32_t i = 0; i < count; ++i) {
      const int32_t slot = first + i;
      step.sequences.push_back({.slot = slot,
                                .first_row = i * tokens,
                                .query_count = tokens,
                                .first_position = lengths_[slot]});
      step.logits.push_back({.row = (i + 1) * tokens - 1, .slot = slot});
      lengths_[slot] += tokens;
    }
    step.layer_class.resize(layers_);
    step.spans.resize(count);
    return step;
  }

  // Greedy draws, and pages of the slot's own for every position.
  void SetUp(int32_t slot, Step* step) const {
    auto greedy = std::make_shared<kernels::SamplingParams>();
    greedy->temperature = 0;
    step->setups.push_back({.slot = slot, .sampling = greedy});
    const int32_t blocks = device_->info().max_pages_per_layer;
    int32_t page = slot * layers_ * blocks;
    for (int32_t l = 0; l < layers_; ++l) {
      for (int32_t b = 0; b < blocks; ++b) {
        step->page_table_updates.push_back({slot, l, b, ++page});
      }
    }
  }

  double Collect() {
    const StepResult result = device_->Collect();
    if (!result.status.ok()) throw std::runtime_error(std::string(result.status.message()));
    return result.seconds;
  }

  Device* const device_;
  const int32_t layers_;
  uint64_t id_ = 0;
  std::vector<int32_t> lengths_;
};

}  // namespace

// Qwen3-4B's shape at 2048 tokens.
SWAA_GPU_BENCHMARK(decode_step) {
  Checkpoint checkpoint;
  checkpoint.config = Qwen3Of4B();
  checkpoint.weights = MakeDummyWeights(checkpoint.config);
  ModelDeviceOptions options;
  options.operators.device = "cuda";
  options.num_slots = kMostRequests;
  options.max_context_tokens = kTokens + 2 * kSteps;
  const auto device = CreateModelDevice(checkpoint, options);
  if (!device.ok()) throw std::runtime_error(std::string(device.status().message()));
  const ModelConfig& c = checkpoint.config;
  const double token_bytes = 4.0 * c.num_layers * c.kv_heads * c.head_dim;
  for (const int32_t batch : {1, 8, 32, kMostRequests}) {
    Requests requests(device->get(), c.num_layers, batch);
    requests.Prefill();
    const double bytes =
        static_cast<double>((*device)->info().weight_bytes) + batch * kTokens * token_bytes;
    ReportRow("decode_step", "batch " + std::to_string(batch), requests.Decode(kSteps),
              bytes / DeviceCeilings().read_bytes_per_second, "");
  }
  return true;
}

}  // namespace swaa::bench
