// A decoder-only transformer over the operators of a backend, driven by the model's numbers: which
// family it is shows only in the switches of ModelConfig.

#ifndef SWAA_ENGINE_MODEL_TRANSFORMER_H_
#define SWAA_ENGINE_MODEL_TRANSFORMER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/device/step.h"
#include "engine/model/transformer_weights.h"
#include "kernels/operators.h"

namespace swaa {

// Rotary frequencies [head_dim / 2], with the model's scaling for long contexts applied.
std::vector<float> RopeInverseFrequencies(const ModelConfig& config);

// Bytes that packed weights take in `type`, about: tied embeddings are not counted twice. What a
// model needs is known before it is loaded.
int64_t EstimateWeightBytes(const ModelConfig& config, kernels::DataType type);

// Bytes of activations for steps of max_step_tokens rows.
int64_t EstimateActivationBytes(const ModelConfig& config, int64_t max_step_tokens);

// Weights, activation buffers and the forward pass. Used by one thread, the one that calls the
// operators.
class Transformer {
 public:
  // Rows of logits that are computed at once: what prompt log-probabilities need is bounded by it.
  static constexpr int64_t kLogitsRows = 64;

  // Takes rows first .. first + count - 1 of Step::logits with their logits [count, vocab], which
  // it may only read during the call.
  using LogitsConsumer = std::function<void(int64_t first, int64_t count, const float* logits)>;

  // Reads and packs all weights; on_progress is called with a share in [0, 1]. `operators` and
  // `weights` outlive the transformer (embedding rows are read when they are needed). Fails as
  // WeightSource::Find and Operators::PackWeight do.
  static absl::StatusOr<std::unique_ptr<Transformer>> Load(
      kernels::Operators* operators, const ModelConfig& config, const WeightSource& weights,
      int64_t max_step_tokens, const std::function<void(double)>& on_progress);

  ~Transformer();

  // Computes all rows of a step, writes their K and V to the pages, and hands the logits of the
  // wanted rows to `consume`, in order. The step must be valid for the page table (ModelDevice
  // checks it).
  void Forward(const Step& step, const kernels::PageTableView& page_table,
               const kernels::PagePoolView& pages, const LogitsConsumer& consume);

  int64_t weight_bytes() const { return weights_->bytes; }

 private:
  struct Activations;

  Transformer(kernels::Operators* operators, const ModelConfig& config);
  absl::Status AllocateActivations(int64_t max_step_tokens);
  void PrepareRows(const Step& step);
  // Norm, projections, rotation, page writes of a layer. Leaves q in activations_->qkv.
  void ComputeQkv(const LayerWeights& layer, int32_t index, const Step& step,
                  const kernels::PageTableView& page_table, const kernels::PagePoolView& pages);
  // Attention of `sequences` and the rest of the layer over `rows` rows of x.
  void ComputeRest(const LayerWeights& layer, const kernels::AttentionParams& attention,
                   int64_t rows, float* x);
  void ComputeLastLayer(const Step& step, kernels::AttentionParams attention);
  void ComputeLogits(int64_t rows, const LogitsConsumer& consume);

  kernels::Operators* const operators_;
  const ModelConfig config_;
  std::vector<float> inverse_frequencies_;
  std::unique_ptr<TransformerWeights> weights_;
  std::unique_ptr<Activations> activations_;
};

}  // namespace swaa

#endif  // SWAA_ENGINE_MODEL_TRANSFORMER_H_
