// The skinny product on Hopper; skinny_product.h says what it computes and chooses it.

#ifndef SWAA_KERNELS_CUDA_LINEAR_SKINNY_HOPPER_PRODUCT_H_
#define SWAA_KERNELS_CUDA_LINEAR_SKINNY_HOPPER_PRODUCT_H_

#include <cuda_runtime_api.h>

#include "absl/status/statusor.h"
#include "kernels/cuda/linear/skinny_product.h"

namespace swaa::kernels::cuda {

// Lets the kernels use the current device's shared memory and says how many of their clusters are
// resident.
absl::StatusOr<SkinnyClusters> InitializeSkinnyHopperProduct(const SkinnyDevice& device);

// Whether the kernels serve the device and tuning.
bool UsesSkinnyHopperProduct(const SkinnyDevice& device, const SkinnyTuning& tuning);

// See LaunchSkinnyProduct. rows up to kMaxSkinnyRows (CHECK).
void LaunchSkinnyHopperProduct(const SkinnyDevice& device, const SkinnyTuning& tuning,
                               const LinearArguments& arguments, cudaStream_t stream,
                               bool dependent);

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_LINEAR_SKINNY_HOPPER_PRODUCT_H_
