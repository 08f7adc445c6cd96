// A whole model in random weights on GPUs whose steps a benchmark makes itself, without a server.

#ifndef SWAA_BENCH_GPU_DRIVEN_MODEL_H_
#define SWAA_BENCH_GPU_DRIVEN_MODEL_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/checkpoint/model_config.h"
#include "engine/device/device.h"
#include "engine/device/step.h"

namespace swaa::bench {

// The shape of a dense Qwen3 with 8 KV heads of 128.
ModelConfig Qwen3Shape(int32_t layers, int32_t hidden, int32_t ffn_width, int32_t heads);

// On one GPU or shared by `ranks`, with room for so many requests of so many tokens; a context of
// 0: the model's. Throws where it does not fit.
std::unique_ptr<Device> MakeDrivenModel(const ModelConfig& config, int32_t ranks, int32_t requests,
                                        int32_t max_context_tokens = 0);

// Requests on a device that has none, greedy. Their steps throw where the device fails.
class DrivenRequests {
 public:
  // balanced: every second layer sees W = 2048, K = 100 while a prompt is computed.
  DrivenRequests(Device* device, const ModelConfig& config, int32_t count, bool balanced = false);

  // Computes a prompt of so many tokens of each, one after the other, in the largest chunks that
  // the device takes. Seconds of the device.
  double Prefill(int32_t tokens);
  // The median of the seconds of so many steps of all requests, two in flight.
  double Decode(int32_t steps);

 private:
  // The next `tokens` of requests first .. first + count - 1.
  Step MakeStep(int32_t first, int32_t count, int32_t tokens, bool prefill);
  // Greedy draws, and pages of the slot's own for every position.
  void SetUp(int32_t slot, Step* step) const;
  double Collect();

  Device* const device_;
  const int32_t layers_;
  const bool balanced_;
  uint64_t id_ = 0;
  std::vector<int32_t> lengths_;  // by slot
};

}  // namespace swaa::bench

#endif  // SWAA_BENCH_GPU_DRIVEN_MODEL_H_
