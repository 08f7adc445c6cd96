// A whole model whose steps a benchmark makes itself.

#include "bench/gpu/driven_model.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "engine/checkpoint/tensor_weights.h"
#include "engine/model/model_device.h"

namespace swaa::bench {

ModelConfig Qwen3Shape(int32_t layers, int32_t hidden, int32_t ffn_width, int32_t heads) {
  ModelConfig config;
  config.architecture = "qwen3";
  config.num_layers = layers;
  config.hidden = hidden;
  config.ffn_width = ffn_width;
  config.heads = heads;
  config.kv_heads = 8;
  config.head_dim = 128;
  config.vocab_size = 151936;
  config.max_context_tokens = 40960;
  config.norm_epsilon = 1e-6f;
  config.rope_theta = 1e6;
  config.qk_norm = true;
  return config;
}

std::unique_ptr<Device> MakeDrivenModel(const ModelConfig& config, int32_t ranks, int32_t requests,
                                        int32_t max_context_tokens) {
  Checkpoint checkpoint;
  checkpoint.config = config;
  checkpoint.weights = MakeDummyWeights(config);
  ModelDeviceOptions options;
  options.operators.device = "cuda";
  options.ranks = ranks;
  options.num_slots = requests;
  options.max_context_tokens = max_context_tokens;
  auto device = CreateModelDevice(checkpoint, options);
  if (!device.ok()) throw std::runtime_error(std::string(device.status().message()));
  return *std::move(device);
}

DrivenRequests::DrivenRequests(Device* device, const ModelConfig& config, int32_t count,
                               bool balanced)
    : device_(device), layers_(config.num_layers), balanced_(balanced), lengths_(count) {}

double DrivenRequests::Prefill(int32_t tokens) {
  double seconds = 0;
  const int32_t most = device_->info().max_step_tokens;
  for (int32_t slot = 0; slot < static_cast<int32_t>(lengths_.size()); ++slot) {
    for (int32_t first = 0; first < tokens; first += most) {
      Step step = MakeStep(slot, 1, std::min(most, tokens - first), /*prefill=*/true);
      for (size_t i = 0; i < step.tokens.size(); ++i) {
        step.tokens[i] = static_cast<int32_t>(i * 37 % 50000);
      }
      if (first == 0) SetUp(slot, &step);
      if (first + most < tokens) step.logits.clear();
      device_->Submit(std::move(step));
      seconds += Collect();
    }
  }
  return seconds;
}

double DrivenRequests::Decode(int32_t steps) {
  const auto submit = [&] {
    device_->Submit(MakeStep(0, static_cast<int32_t>(lengths_.size()), 1, /*prefill=*/false));
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

Step DrivenRequests::MakeStep(int32_t first, int32_t count, int32_t tokens, bool prefill) {
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
  // Of two classes of layers the first may see less.
  step.layer_class.resize(layers_);
  for (int32_t l = 0; l < layers_; ++l) step.layer_class[l] = l % 2;
  step.spans.resize(2 * count);
  if (balanced_ && prefill) {
    std::fill_n(step.spans.begin(), count, kernels::KeySpan{.window = 2048, .sinks = 100});
  }
  return step;
}

void DrivenRequests::SetUp(int32_t slot, Step* step) const {
  auto greedy = std::make_shared<kernels::SamplingParams>();
  greedy->temperature = 0;
  step->setups.push_back({.slot = slot, .sampling = greedy});
  const int32_t blocks = device_->info().max_pages_per_layer;
  int32_t page = slot * layers_ * blocks;
  for (int32_t l = 0; l < layers_; ++l) {
    for (int32_t b = 0; b < blocks; ++b) step->page_table_updates.push_back({slot, l, b, ++page});
  }
}

double DrivenRequests::Collect() {
  const StepResult result = device_->Collect();
  if (!result.status.ok()) throw std::runtime_error(std::string(result.status.message()));
  return result.seconds;
}

}  // namespace swaa::bench
