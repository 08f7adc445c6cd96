// An adapter's weights as the forward pass wants them: by the products that they change.

#ifndef SWAA_ENGINE_MODEL_ADAPTER_WEIGHTS_H_
#define SWAA_ENGINE_MODEL_ADAPTER_WEIGHTS_H_

#include <array>
#include <cstdint>
#include <memory>
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

class AdapterWeights : public DeviceAdapter {
 public:
  // The operators' rank's part. As Operators::PackLora. Thread-safe.
  static absl::StatusOr<std::shared_ptr<const AdapterWeights>> Pack(
      kernels::Operators* operators, const ModelConfig& config, const LoraCheckpoint& checkpoint);

  int64_t bytes() const override { return bytes_; }
  // Null where the adapter leaves the product alone.
  const kernels::LoraWeight* Find(int32_t layer, AdaptedProduct product) const {
    return layers_[layer][static_cast<size_t>(product)].get();
  }

 private:
  std::vector<std::array<std::unique_ptr<kernels::LoraWeight>, kAdaptedProducts>> layers_;
  int64_t bytes_ = 0;
};

}  // namespace swaa

#endif  // SWAA_ENGINE_MODEL_ADAPTER_WEIGHTS_H_
