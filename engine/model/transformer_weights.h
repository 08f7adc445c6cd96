// The weights of a transformer as its forward pass wants them: products that share an input are
// one.

#ifndef SWAA_ENGINE_MODEL_TRANSFORMER_WEIGHTS_H_
#define SWAA_ENGINE_MODEL_TRANSFORMER_WEIGHTS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/checkpoint/checkpoint.h"
#include "kernels/operators.h"

namespace swaa {

// One rank's part: of the shapes below its RankSlices, whatever the whole model has.
struct LayerWeights {
  std::unique_ptr<kernels::Buffer> attention_norm;  // f32 [hidden]
  std::unique_ptr<kernels::Weight> qkv;       // [(heads + 2 kv_heads) * head_dim, hidden]: q, k, v
  std::unique_ptr<kernels::Buffer> qkv_bias;  // f32, as qkv's rows; null without qkv_bias
  std::unique_ptr<kernels::Buffer> query_norm;  // f32 [head_dim]; null without qk_norm
  std::unique_ptr<kernels::Buffer> key_norm;
  std::unique_ptr<kernels::Weight> attention_output;  // [hidden, heads * head_dim]
  std::unique_ptr<kernels::Buffer> output_bias;       // f32 [hidden]; null without output_bias, on
                                                      // ranks but the first (it is added once)
  std::unique_ptr<kernels::Buffer> ffn_norm;          // f32 [hidden]
  std::unique_ptr<kernels::Weight> gate_up;           // [2 ffn_width, hidden]: gate, up
  std::unique_ptr<kernels::Weight> ffn_down;          // [hidden, ffn_width]
  // Of a mixture of experts, which has neither of the two above.
  std::unique_ptr<kernels::Weight> router;  // [experts, hidden]; null where the rank has no part
  std::vector<kernels::ExpertWeights> experts;
  std::vector<std::unique_ptr<kernels::Weight>> expert_weights;  // what `experts` points to
};

struct TransformerWeights {
  std::unique_ptr<kernels::Embedding> embedding;  // whole on every rank
  std::vector<LayerWeights> layers;
  std::unique_ptr<kernels::Buffer> output_norm;  // f32 [hidden]
  std::unique_ptr<kernels::Weight> output;       // [vocab, hidden]; the embedding's rows where tied
  int64_t bytes = 0;                             // of all
};

// Reads and packs all weights, or the part of them that the operators' shard says. `source`
// outlives the result (embedding rows are read when needed). on_progress may be empty. Fails as
// WeightSource::Find and Operators do; INVALID_ARGUMENT where a weight has not the shape that the
// configuration says.
absl::StatusOr<std::unique_ptr<TransformerWeights>> LoadTransformerWeights(
    kernels::Operators* operators, const ModelConfig& config, const WeightSource& source,
    const std::function<void(double)>& on_progress);

}  // namespace swaa

#endif  // SWAA_ENGINE_MODEL_TRANSFORMER_WEIGHTS_H_
