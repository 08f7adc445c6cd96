// A weight of the CPU backend in all its forms.

#ifndef SWAA_KERNELS_CPU_CPU_WEIGHT_H_
#define SWAA_KERNELS_CPU_CPU_WEIGHT_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "kernels/cpu/affine_weight.h"
#include "kernels/cpu/onednn_matmul.h"
#include "kernels/cpu/product_choice.h"
#include "kernels/operators.h"

namespace swaa::kernels::cpu {

class CpuWeight : public Weight {
 public:
  // choice: of the weight's kind; outlives it.
  CpuWeight(std::unique_ptr<PackedWeight> packed, std::optional<AffineWeight> affine,
            std::shared_ptr<const ProductChoice> choice)
      : packed_(std::move(packed)), affine_(std::move(affine)), choice_(std::move(choice)) {}
  int64_t out_features() const override { return packed_->out_features(); }
  int64_t in_features() const override { return packed_->in_features(); }
  int64_t bytes() const override {
    return packed_->bytes() + (affine_.has_value() ? affine_->bytes : 0);
  }
  const PackedWeight& packed() const { return *packed_; }
  const std::optional<AffineWeight>& affine() const { return affine_; }
  const ProductChoice& choice() const { return *choice_; }

 private:
  std::unique_ptr<PackedWeight> packed_;
  std::optional<AffineWeight> affine_;
  std::shared_ptr<const ProductChoice> choice_;  // of its kind, which may yet be measured
};

}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_CPU_WEIGHT_H_
