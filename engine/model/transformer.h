// A decoder-only transformer over the operators of a backend, driven by the model's numbers: which
// family it is shows only in the switches of ModelConfig.

#ifndef SWAA_ENGINE_MODEL_TRANSFORMER_H_
#define SWAA_ENGINE_MODEL_TRANSFORMER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/rope_frequencies.h"
#include "engine/model/adapter_weights.h"
#include "engine/model/rank_slices.h"
#include "engine/model/transformer_weights.h"
#include "kernels/operators.h"

namespace swaa {

// Used by one thread, that of its operators. Where these share the model with other ranks, it is
// one rank's part of it: it computes the same steps as the others', and draws the same tokens.
class Transformer {
 public:
  // Rows of the steps that it computes.
  struct Capacity {
    int64_t step_rows = 0;
    int64_t logits_rows = 0;  // at a time: more of them are taken in slices
  };

  // What Load will take at most: weights, and activations beside them.
  static int64_t MaxWeightBytes(const kernels::Operators& operators, const ModelConfig& config);
  static int64_t ActivationBytes(const kernels::Operators& operators, const ModelConfig& config,
                                 const Capacity& capacity);

  // Reads and packs all weights; on_progress is called with a share in [0, 1]. `operators` and
  // `weights` outlive the transformer (embedding rows are read when they are needed). Fails as
  // WeightSource::Find and Operators::PackWeight do.
  static absl::StatusOr<std::unique_ptr<Transformer>> Load(
      kernels::Operators* operators, const ModelConfig& config, const WeightSource& weights,
      const Capacity& capacity, const std::function<void(double)>& on_progress);

  ~Transformer();

  // Enqueues a staged step: all its rows, their K and V into the pages, and the draws and scores of
  // the rows whose logits are wanted. Called inside Operators::Replay.
  void Forward(kernels::StagedStep* step);

  int64_t weight_bytes() const { return weights_->bytes; }

 private:
  struct Activations;

  Transformer(kernels::Operators* operators, const ModelConfig& config, const Capacity& capacity);
  absl::Status AllocateActivations();
  // What the step's adapters add to a product of layer `layer`, for the next operator alone; null:
  // there are none.
  const kernels::LoraUpdate* UpdateOf(int32_t layer, AdaptedProduct product,
                                      const kernels::StagedStep& step, bool wanted_rows);
  void* FfnDelta() const;
  void AddNorm(void* delta, const kernels::Buffer& weight, int64_t rows, void* residual);
  // Projections, rotation, page writes of a layer over what AddNorm left.
  void ComputeQkv(const LayerWeights& layer, int32_t index, const kernels::StagedStep& step);
  // Attention and the rest of a layer over `rows` rows of the residual stream; leaves what the
  // feed-forward adds to it in `delta`.
  void ComputeRest(const LayerWeights& layer, const kernels::StagedStep& step,
                   const kernels::AttentionParams& attention, int64_t rows, void* residual);
  // The feed-forward of a layer over `rows` normed rows, into `delta`.
  void ComputeFfn(const LayerWeights& layer, const kernels::StagedStep& step,
                  const kernels::AttentionParams& attention, int64_t rows);
  void ComputeExperts(const LayerWeights& layer, const kernels::StagedStep& step, int64_t rows);
  // x * weight^T in f32 into `out`, of all ranks' parts of the weight (null: this rank has none).
  void LinearOfAllRanks(const kernels::Weight* weight, const void* x, int64_t rows, int64_t columns,
                        const kernels::Buffer& out);
  void ComputeLogits(kernels::StagedStep* step, void* residual);

  kernels::Operators* const operators_;
  const ModelConfig config_;
  const kernels::ModelShape shape_;
  const Capacity capacity_;
  std::unique_ptr<kernels::Buffer> inverse_frequencies_;  // f32 [head_dim / 2]
  std::unique_ptr<TransformerWeights> weights_;
  std::unique_ptr<Activations> activations_;
  kernels::LoraUpdate update_;
};

}  // namespace swaa

#endif  // SWAA_ENGINE_MODEL_TRANSFORMER_H_
