// An adapter's weights as the forward pass wants them: by the products that they change.

#ifndef SWAA_ENGINE_MODEL_ADAPTER_WEIGHTS_H_
#define SWAA_ENGINE_MODEL_ADAPTER_WEIGHTS_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/checkpoint/model_config.h"
#include "engine/checkpoint/peft_adapter.h"
#include "engine/device/adapter.h"
#include "kernels/operators.h"

namespace swaa {

// The products of a layer that adapters change.
enum class AdaptedProduct : uint8_t { kQkv, kAttentionOutput, kGateUp, kFfnDown };
inline constexpr size_t kAdaptedProducts = 4;

// Its place among all products of a model that adapters change.
constexpr int32_t PlaceOf(int32_t layer, AdaptedProduct product) {
  return layer * static_cast<int32_t>(kAdaptedProducts) + static_cast<int32_t>(product);
}

class AdapterWeights : public DeviceAdapter {
 public:
  // The operators' rank's part. As Operators::PackLora. Thread-safe.
  static absl::StatusOr<std::shared_ptr<const AdapterWeights>> Pack(
      kernels::Operators* operators, const ModelConfig& config, const LoraCheckpoint& checkpoint);

  int64_t bytes() const override { return bytes_; }
  // By PlaceOf; null where the adapter leaves the product alone.
  std::span<const kernels::LoraWeight* const> weights() const { return weights_; }

 private:
  std::vector<std::unique_ptr<kernels::LoraWeight>> owned_;
  std::vector<const kernels::LoraWeight*> weights_;
  int64_t bytes_ = 0;
};

}  // namespace swaa

#endif  // SWAA_ENGINE_MODEL_ADAPTER_WEIGHTS_H_
