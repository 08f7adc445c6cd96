// Weights and tables in a GPU's memory; whoever made them keeps the memory.

#ifndef SWAA_KERNELS_CUDA_DEVICE_WEIGHTS_H_
#define SWAA_KERNELS_CUDA_DEVICE_WEIGHTS_H_

#include <cstdint>

#include "kernels/operators.h"

namespace swaa::kernels::cuda {

// bf16 [out_features, in_features], row-major.
class DeviceWeight : public Weight {
 public:
  DeviceWeight(const Bf16* data, int64_t out_features, int64_t in_features)
      : data_(data), out_features_(out_features), in_features_(in_features) {}
  int64_t out_features() const override { return out_features_; }
  int64_t in_features() const override { return in_features_; }
  int64_t bytes() const override { return 2 * out_features_ * in_features_; }
  const Bf16* data() const { return data_; }

 private:
  const Bf16* data_;
  int64_t out_features_;
  int64_t in_features_;
};

// bf16 [vocab, hidden]. shared: the memory is a weight's.
class DeviceEmbedding : public Embedding {
 public:
  DeviceEmbedding(const Bf16* data, int64_t vocab, int64_t hidden, bool shared)
      : data_(data), vocab_(vocab), hidden_(hidden), shared_(shared) {}
  int64_t bytes() const override { return shared_ ? 0 : 2 * vocab_ * hidden_; }
  const Bf16* data() const { return data_; }
  int64_t vocab() const { return vocab_; }
  int64_t hidden() const { return hidden_; }

 private:
  const Bf16* data_;
  int64_t vocab_;
  int64_t hidden_;
  bool shared_;
};

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_DEVICE_WEIGHTS_H_
