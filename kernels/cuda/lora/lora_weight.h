// Adapters as they lie in device memory.

#ifndef SWAA_KERNELS_CUDA_LORA_LORA_WEIGHT_H_
#define SWAA_KERNELS_CUDA_LORA_LORA_WEIGHT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/cuda/lora/adapter_memory.h"
#include "kernels/cuda/lora/lora.h"
#include "kernels/operators.h"

namespace swaa::kernels::cuda {

// What an adapter adds to one product. The memory is that of the whole adapter.
class CudaLoraWeight : public LoraWeight {
 public:
  CudaLoraWeight(std::shared_ptr<std::byte> memory, const LoraDeviceWeight* device, int64_t bytes)
      : memory_(std::move(memory)), device_(device), bytes_(bytes) {}
  int64_t bytes() const override { return bytes_; }
  const LoraDeviceWeight* device() const { return device_; }

 private:
  std::shared_ptr<std::byte> memory_;
  const LoraDeviceWeight* device_;
  int64_t bytes_;
};

// Packs one adapter in one block of `memory`, which outlives it. UNIMPLEMENTED, naming the number,
// for what the kernels do not serve: sizes that are no multiples of 8, more than kMaxLoraRanks
// ranks of a product. RESOURCE_EXHAUSTED as AdapterMemory. Thread-safe.
absl::StatusOr<std::vector<std::unique_ptr<LoraWeight>>> PackCudaLora(
    std::span<const LoraSpec> weights, AdapterMemory* memory);

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_LORA_LORA_WEIGHT_H_
