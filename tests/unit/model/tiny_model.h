// A small random model for tests, and its forward pass in double precision, written straight from
// the definition.

#ifndef SWAA_TESTS_UNIT_CHECKPOINT_TINY_MODEL_H_
#define SWAA_TESTS_UNIT_CHECKPOINT_TINY_MODEL_H_

#include <cstdint>
#include <map>
#include <span>
#include <utility>
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
  void Remove(WeightRole role, int32_t layer) { tensors_.erase({role, layer}); }
  // [rows, columns]; empty where the model has no such weight.
  std::span<const double> Values(WeightRole role, int32_t layer) const;

 private:
  struct Tensor {
    int64_t rows = 0;
    int64_t columns = 0;
    std::vector<double> values;  // exact f32 numbers
  };
  std::map<std::pair<WeightRole, int32_t>, Tensor> tensors_;
};

// A model of three layers with odd sizes.
ModelConfig TinyConfig();

// Logits [tokens, vocab] of a sequence. spans[position * layers + layer] is what the row sees
// there.
std::vector<double> ReferenceLogits(const ModelConfig& config, const RandomWeights& weights,
                                    std::span<const int32_t> tokens,
                                    std::span<const kernels::KeySpan> spans);

}  // namespace swaa

#endif  // SWAA_TESTS_UNIT_CHECKPOINT_TINY_MODEL_H_
