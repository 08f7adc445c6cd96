// The skinny product: out[r, o] = sum_i x[r, i] * weight[o, i] (+ bias[o]), 1 to 64 rows of
// x, bound by reading the weight once. Launched as a programmatic dependent it fetches the first
// tiles of its weight while the kernel before it still runs. Sums are f32, in an order that depends
// on the weight's shape and the device alone: a row's result is the same bits whatever the other
// rows, and run after run.

#ifndef SWAA_KERNELS_CUDA_LINEAR_SKINNY_PRODUCT_H_
#define SWAA_KERNELS_CUDA_LINEAR_SKINNY_PRODUCT_H_

#include <cstdint>
#include <cuda_runtime_api.h>

#include "absl/status/statusor.h"
#include "kernels/cuda/linear/linear_arguments.h"
#include "kernels/cuda/linear/skinny_hopper_grid.h"

namespace swaa::kernels::cuda {

// More rows are not for this product.
inline constexpr int64_t kMaxSkinnyRows = 64;

// How the kernel is set up. The defaults are what measuring settled on; benchmarks compare others.
struct SkinnyTuning {
  int64_t max_rows = 0;                   // of x; 0: 64 on Hopper, 32 elsewhere
  int32_t k_tile = 64;                    // input features of a tile: 64, or 128 but on Hopper
  int32_t stages = 0;                     // tiles in flight a block; 0: as many as fit, see below
  int32_t blocks_per_multiprocessor = 1;  // of one launch
  int32_t min_tiles_per_block = 2;        // not of Hopper's kernel
  int32_t max_cluster = 4;                // blocks that share a row of tiles, of Hopper's kernel
  bool hopper = true;                     // Hopper's own kernel where there is one
};

// What the kernel needs to know of a device.
struct SkinnyDevice {
  int32_t multiprocessors = 0;
  int64_t shared_bytes_per_block = 0;  // the most a block may ask for
  int64_t shared_bytes_per_multiprocessor = 0;
  bool programmatic_launch = false;  // compute capability 9.0 and newer
  bool hopper = false;               // 9.0
  SkinnyClusters clusters = {};      // of Hopper's kernel
};

// Describes the current CUDA device and lets it run the kernels with all their shared memory.
// Called once a device before anything is launched on it.
absl::StatusOr<SkinnyDevice> InitializeSkinnyProduct();

// Memory that lasts from launch to launch and belongs to one stream.
struct SkinnyWorkspace {
  uint32_t* arrivals = nullptr;  // [arrival_count], zero before the first launch and after each
  int64_t arrival_count = 0;
  void* partials = nullptr;  // at least SkinnyPartialBytes, aligned to 16
  int64_t partial_bytes = 0;
};

// Bytes of partial sums that a launch of up to kMaxSkinnyRows rows may write.
int64_t SkinnyPartialBytes(const SkinnyDevice& device, const SkinnyTuning& tuning);

// Whether the product can be computed here: rows, the workspace, and shared memory suffice.
bool SkinnyProductFits(const SkinnyDevice& device, const SkinnyTuning& tuning,
                       const SkinnyWorkspace& workspace, const LinearArguments& arguments);

// Enqueues the product. `dependent`: the kernel before it in the stream may be overlapped (no
// effect on devices without programmatic launch). CHECKs SkinnyProductFits. Throws CudaError.
void LaunchSkinnyProduct(const SkinnyDevice& device, const SkinnyTuning& tuning,
                         const SkinnyWorkspace& workspace, const LinearArguments& arguments,
                         cudaStream_t stream, bool dependent);

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_LINEAR_SKINNY_PRODUCT_H_
