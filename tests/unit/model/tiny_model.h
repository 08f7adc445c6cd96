// A small random model for tests, and its forward pass in double precision, written straight from
// the definition.

#ifndef SWAA_TESTS_UNIT_CHECKPOINT_TINY_MODEL_H_
#define SWAA_TESTS_UNIT_CHECKPOINT_TINY_MODEL_H_

#include <cstdint>
#include <map>
#include <span>
#include <tuple>
#include <vector>

#include "engine/checkpoint/checkpoint.h"
#include "kernels/types.h"

namespace swaa {

// Weights from a normal distribution; the shapes are the configuration's.
class RandomWeights : public WeightSource {
 public:
  RandomWeights(const ModelConfig& config, uint64_t seed);

  absl::StatusOr<WeightView> Find(WeightKey key) const override;
  int64_t mapped_bytes() const override { return 0; }
  // NOT_FOUND from now on.
  void Remove(WeightRole role, int32_t layer) { tensors_.erase({role, layer, 0}); }
  // weight += update, [rows, columns], rounded to f32.
  void Add(WeightRole role, int32_t layer, std::span<const double> update);
  // [rows, columns]; empty where the model has no such weight.
  std::span<const double> Values(WeightRole role, int32_t layer, int32_t expert = 0) const;

 private:
  struct Tensor {
    int64_t rows = 0;
    int64_t columns = 0;
    std::vector<double> values;  // exact f32 numbers
  };
  std::map<std::tuple<WeightRole, int32_t, int32_t>, Tensor> tensors_;  // by layer and expert
};

// A model of three layers with odd sizes.
ModelConfig TinyConfig();

// Layer 1 of it has one feed-forward network, the others are mixtures.
ModelConfig TinyMixtureConfig();

// Logits [tokens, vocab] of a sequence. spans[position * layers + layer] is what the row sees
// there. routing_margin, where given: the smallest distance of all rows and layers between the last
// chosen expert's logit and the next one's; what rounds by more may choose otherwise.
std::vector<double> ReferenceLogits(const ModelConfig& config, const RandomWeights& weights,
                                    std::span<const int32_t> tokens,
                                    std::span<const kernels::KeySpan> spans,
                                    double* routing_margin = nullptr);

}  // namespace swaa

#endif  // SWAA_TESTS_UNIT_CHECKPOINT_TINY_MODEL_H_
