// Which instance of the kernel of skinny products computes a product, and its launch.

#include <algorithm>
#include <array>
#include <cuda_runtime.h>

#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/linear/skinny_hopper_product.h"
#include "kernels/cuda/linear/skinny_kernel.cuh"
#include "kernels/cuda/linear/skinny_product.h"

namespace swaa::kernels::cuda {
namespace {

struct Instance {
  int32_t rows;
  int32_t k_tile;
  int32_t stages;
  int32_t shared_bytes;
  void (*kernel)(SkinnyKernelParams);
};

template <int kRows, int kTileK, int kStages>
constexpr Instance MakeInstance() {
  return {kRows, kTileK, kStages, kStages * SkinnyStageBytes<kRows, kTileK>(),
          SkinnyKernel<kRows, kTileK, kStages>};
}

// By rows, then the deepest first. Two blocks of the deepest fill the shared memory of a Hopper
// multiprocessor; the shallow ones fit where a block may have 99 KB, or four a multiprocessor.
constexpr std::array kInstances = {
    MakeInstance<8, 64, 6>(),  MakeInstance<8, 64, 3>(),  MakeInstance<8, 128, 3>(),
    MakeInstance<16, 64, 6>(), MakeInstance<16, 64, 3>(), MakeInstance<16, 128, 3>(),
    MakeInstance<32, 64, 5>(), MakeInstance<32, 64, 3>(), MakeInstance<32, 128, 2>(),
    MakeInstance<64, 64, 4>(), MakeInstance<64, 64, 3>(), MakeInstance<64, 128, 2>(),
};

// Shared memory that the system keeps of each block.
constexpr int64_t kReservedSharedBytes = 1024;

int32_t MaxBlocks(const SkinnyDevice& device, const SkinnyTuning& tuning) {
  return device.multiprocessors * tuning.blocks_per_multiprocessor;
}

// The instance of the fewest rows that suffice; of these the deepest of which as many blocks fit a
// multiprocessor as shall be resident, else the shallowest. Null: none fits.
const Instance* FindInstance(const SkinnyDevice& device, const SkinnyTuning& tuning, int64_t rows) {
  // This launch's blocks and the next one's.
  const int64_t resident = tuning.blocks_per_multiprocessor * (device.programmatic_launch ? 2 : 1);
  const int64_t share = device.shared_bytes_per_multiprocessor / resident - kReservedSharedBytes;
  const Instance* shallowest = nullptr;
  for (const Instance& instance : kInstances) {
    if (instance.rows < rows || instance.k_tile != tuning.k_tile) continue;
    if (shallowest != nullptr && instance.rows > shallowest->rows) break;
    if (instance.shared_bytes > device.shared_bytes_per_block) continue;
    if (tuning.stages == 0 ? instance.shared_bytes <= share : instance.stages == tuning.stages) {
      return &instance;
    }
    shallowest = &instance;
  }
  return shallowest;
}

SkinnyPartition Partition(const SkinnyDevice& device, const SkinnyTuning& tuning,
                          const LinearArguments& arguments) {
  return MakeSkinnyPartition(OutputOf(arguments).features, arguments.in_features,
                             arguments.silu_mul, tuning.k_tile, MaxBlocks(device, tuning),
                             tuning.min_tiles_per_block);
}

}  // namespace

absl::StatusOr<SkinnyDevice> InitializeSkinnyProduct() {
  int device = 0;
  cudaDeviceProp properties;
  SWAA_RETURN_IF_ERROR(CudaStatus(cudaGetDevice(&device), "current CUDA device"));
  SWAA_RETURN_IF_ERROR(
      CudaStatus(cudaGetDeviceProperties(&properties, device), "properties of the CUDA device"));
  SkinnyDevice result = {
      .multiprocessors = properties.multiProcessorCount,
      .shared_bytes_per_block = static_cast<int64_t>(properties.sharedMemPerBlockOptin),
      .shared_bytes_per_multiprocessor =
          static_cast<int64_t>(properties.sharedMemPerMultiprocessor),
      .programmatic_launch = properties.major >= 9,
      .hopper = properties.major == 9 && properties.minor == 0,
  };
  for (const Instance& instance : kInstances) {
    if (instance.shared_bytes > result.shared_bytes_per_block) continue;
    const auto* kernel = reinterpret_cast<const void*>(instance.kernel);
    SWAA_RETURN_IF_ERROR(
        CudaStatus(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        instance.shared_bytes),
                   "shared memory of the skinny product"));
    // Blocks of two launches shall be resident; a multiprocessor divides its memory between shared
    // memory and L1 anew only when it is idle.
    SWAA_RETURN_IF_ERROR(
        CudaStatus(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                        cudaSharedmemCarveoutMaxShared),
                   "shared memory of the skinny product"));
  }
  if (result.hopper) {
    SWAA_ASSIGN_OR_RETURN(result.clusters, InitializeSkinnyHopperProduct(result));
  }
  return result;
}

int64_t SkinnyPartialBytes(const SkinnyDevice& device, const SkinnyTuning& tuning) {
  return int64_t{2} * MaxBlocks(device, tuning) * kSkinnyTileRows * kMaxSkinnyRows *
         static_cast<int64_t>(sizeof(float));
}

bool SkinnyProductFits(const SkinnyDevice& device, const SkinnyTuning& tuning,
                       const SkinnyWorkspace& workspace, const LinearArguments& arguments) {
  // On an H100 cuBLASLt is faster with more rows than this than the kernel for any GPU.
  constexpr int64_t kFasterRows = 32;
  const bool hopper = UsesSkinnyHopperProduct(device, tuning);
  int64_t max_rows = tuning.max_rows;
  if (max_rows == 0) max_rows = hopper ? kMaxSkinnyRows : kFasterRows;
  if (arguments.rows < 1 || arguments.rows > std::min(max_rows, kMaxSkinnyRows)) return false;
  if (hopper) {
    // Its boxes hold 8 rows of gate and 8 of up.
    return !arguments.silu_mul || arguments.out_features % 16 == 0;
  }
  if (workspace.partial_bytes < SkinnyPartialBytes(device, tuning)) return false;
  const int64_t row_tiles = Partition(device, tuning, arguments).row_tiles;
  return row_tiles * kSkinnyWarps <= workspace.arrival_count &&
         FindInstance(device, tuning, arguments.rows) != nullptr;
}

void LaunchSkinnyProduct(const SkinnyDevice& device, const SkinnyTuning& tuning,
                         const SkinnyWorkspace& workspace, const LinearArguments& arguments,
                         cudaStream_t stream, bool dependent) {
  SWAA_CHECK(SkinnyProductFits(device, tuning, workspace, arguments))
      << "rows " << arguments.rows << ", " << arguments.in_features << " -> "
      << arguments.out_features;
  if (UsesSkinnyHopperProduct(device, tuning)) {
    LaunchSkinnyHopperProduct(device, tuning, arguments, stream, dependent);
    return;
  }
  const Instance& instance = *FindInstance(device, tuning, arguments.rows);
  const SkinnyKernelParams params = {
      .weight = arguments.weight,
      .x = arguments.x,
      .out = OutputOf(arguments),
      .partials = static_cast<float4*>(workspace.partials),
      .arrivals = workspace.arrivals,
      .x_stride = arguments.stride(),
      .in_features = static_cast<int32_t>(arguments.in_features),
      .partition = Partition(device, tuning, arguments),
      .dependent = dependent && device.programmatic_launch,
      .shares_x = arguments.shares_x,
  };
  cudaLaunchAttribute attribute;
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<uint32_t>(params.partition.blocks));
  config.blockDim = dim3(kSkinnyThreads);
  config.dynamicSmemBytes = instance.shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = params.dependent ? 1 : 0;
  SWAA_CUDA_CHECK(cudaLaunchKernelEx(&config, instance.kernel, params));
}

}  // namespace swaa::kernels::cuda
