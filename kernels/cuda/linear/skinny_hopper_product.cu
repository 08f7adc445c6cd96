// Which instance of Hopper's kernel computes a skinny product, and its launch.

#include <algorithm>
#include <array>
#include <cuda_runtime.h>

#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/linear/skinny_hopper_kernel.cuh"
#include "kernels/cuda/linear/skinny_hopper_product.h"
#include "kernels/cuda/linear/skinny_tensor_map.h"

namespace swaa::kernels::cuda {
namespace {

// Shared memory that the system keeps of each block.
constexpr int64_t kReservedSharedBytes = 1024;
// Of a multiprocessor, for the small kernels that lie between two products: with no room for them
// the second product's blocks would have to wait until they are gone.
constexpr int64_t kSharedBytesForOthers = 8192;

struct Instance {
  int32_t rows;
  void (*kernel)(SkinnyHopperParams, SkinnyTensorMaps);
};
constexpr std::array<Instance, 4> kInstances = {{{8, SkinnyHopperKernel<8>},
                                                 {16, SkinnyHopperKernel<16>},
                                                 {32, SkinnyHopperKernel<32>},
                                                 {64, SkinnyHopperKernel<64>}}};
static_assert(kInstances.back().rows == kMaxSkinnyRows);

// What each of a launch's blocks may use beside the next launch's.
int64_t SharedBytesOfBlock(const SkinnyDevice& device, const SkinnyTuning& tuning) {
  return std::min((device.shared_bytes_per_multiprocessor - kSharedBytesForOthers) /
                          (2 * tuning.blocks_per_multiprocessor) -
                      kReservedSharedBytes,
                  device.shared_bytes_per_block);
}

int32_t Stages(const SkinnyDevice& device, const SkinnyTuning& tuning, const SkinnyHopperGrid& grid,
               int32_t rows) {
  const int64_t limit = SharedBytesOfBlock(device, tuning);
  int32_t stages = tuning.stages > 0 ? tuning.stages : kSkinnyMaxStages;
  while (stages > 1 && SkinnyHopperSharedBytes(grid, rows, stages) > limit) --stages;
  return stages;
}

// Multiprocessors that share a cluster lie together: fewer clusters than their number divides may
// be resident, and which card has how many together differs.
absl::StatusOr<SkinnyClusters> ResidentClusters(const SkinnyDevice& device) {
  SkinnyClusters clusters = {};
  for (size_t i = 0; i < clusters.size(); ++i) {
    const uint32_t blocks = 1u << i;
    cudaLaunchAttribute attribute;
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim = {blocks, 1, 1};
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(device.multiprocessors / blocks * blocks);
    config.blockDim = dim3(kSkinnyMaxTileRows * 2 + 32);
    // All of a multiprocessor's: no two blocks on one.
    config.dynamicSmemBytes = device.shared_bytes_per_block;
    config.attrs = &attribute;
    config.numAttrs = 1;
    SWAA_RETURN_IF_ERROR(
        CudaStatus(cudaOccupancyMaxActiveClusters(&clusters[i], kInstances.front().kernel, &config),
                   "resident clusters of the skinny product"));
    clusters[i] = std::min(clusters[i], device.multiprocessors / static_cast<int32_t>(blocks));
  }
  return clusters;
}

}  // namespace

absl::StatusOr<SkinnyClusters> InitializeSkinnyHopperProduct(const SkinnyDevice& device) {
  for (const Instance& instance : kInstances) {
    const auto* kernel = reinterpret_cast<const void*>(instance.kernel);
    SWAA_RETURN_IF_ERROR(
        CudaStatus(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        static_cast<int>(device.shared_bytes_per_block)),
                   "shared memory of the skinny product"));
    // Blocks of two launches shall be resident; a multiprocessor divides its memory between shared
    // memory and L1 anew only when it is idle.
    SWAA_RETURN_IF_ERROR(
        CudaStatus(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                        cudaSharedmemCarveoutMaxShared),
                   "shared memory of the skinny product"));
  }
  return ResidentClusters(device);
}

bool UsesSkinnyHopperProduct(const SkinnyDevice& device, const SkinnyTuning& tuning) {
  return device.hopper && tuning.hopper && tuning.k_tile == kSkinnyBoxColumns;
}

void LaunchSkinnyHopperProduct(const SkinnyDevice& device, const SkinnyTuning& tuning,
                               const LinearArguments& arguments, cudaStream_t stream,
                               bool dependent) {
  const auto* instance = std::find_if(kInstances.begin(), kInstances.end(),
                                      [&](const Instance& i) { return i.rows >= arguments.rows; });
  SWAA_CHECK(instance != kInstances.end()) << "rows " << arguments.rows;
  SkinnyClusters clusters = device.clusters;
  for (int32_t& count : clusters) count *= tuning.blocks_per_multiprocessor;
  const SkinnyHopperGrid grid =
      MakeSkinnyHopperGrid(arguments.out_features, arguments.in_features, arguments.silu_mul,
                           clusters, tuning.max_cluster);
  const SkinnyHopperParams params = {
      .out = OutputOf(arguments),
      .grid = grid,
      .stages = Stages(device, tuning, grid, instance->rows),
      .shares_x = arguments.shares_x,
  };
  cudaLaunchAttribute attributes[2];
  attributes[0].id = cudaLaunchAttributeClusterDimension;
  attributes[0].val.clusterDim = {static_cast<uint32_t>(grid.cluster), 1, 1};
  attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[1].val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<uint32_t>(grid.blocks()));
  config.blockDim = dim3(static_cast<uint32_t>(SkinnyHopperThreads(grid)));
  config.dynamicSmemBytes = SkinnyHopperSharedBytes(grid, instance->rows, params.stages);
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = dependent ? 2 : 1;
  SWAA_CUDA_CHECK(
      cudaLaunchKernelEx(&config, instance->kernel, params,
                         MakeSkinnyTensorMaps(arguments, grid.tile_rows, instance->rows)));
}

}  // namespace swaa::kernels::cuda
