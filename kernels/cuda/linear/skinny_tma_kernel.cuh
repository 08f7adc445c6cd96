// The kernel of skinny products with Hopper's copy engine: one thread orders boxes of weight and x
// into a ring of kStages in shared memory, eight warps multiply. The sums are those of
// skinny_kernel.cuh, bit for bit.

#ifndef SWAA_KERNELS_CUDA_LINEAR_SKINNY_TMA_KERNEL_CUH_
#define SWAA_KERNELS_CUDA_LINEAR_SKINNY_TMA_KERNEL_CUH_

#include <cstdint>

#include "kernels/cuda/linear/skinny_ptx.cuh"
#include "kernels/cuda/linear/skinny_tensor_map.h"
#include "kernels/cuda/linear/skinny_tile.cuh"

namespace swaa::kernels::cuda {

inline constexpr int kSkinnyTmaThreads = kSkinnyThreads + 32;  // and the producer's warp
// Boxes lie at multiples of 1024 bytes, where the engine's swizzle begins anew.
inline constexpr int kSkinnyBoxAlignment = 1024;

// Shared memory: the ring, two barriers a stage, and what aligning the ring may cost.
template <int kRows, int kStages>
constexpr int SkinnyTmaSharedBytes() {
  return kStages * (SkinnyStageBytes<kRows, kSkinnyBoxColumns>() + 16) + kSkinnyBoxAlignment;
}

#if __CUDA_ARCH__ >= 900

// A stage is filled when its copies have arrived, and free when all warps are done with it.
template <int kRows, int kStages>
struct TmaRing {
  static constexpr int kStageBytes = SkinnyStageBytes<kRows, kSkinnyBoxColumns>();
  uint32_t stages;  // shared memory

  __device__ uint32_t Stage(int stage) const { return stages + stage * kStageBytes; }
  __device__ uint32_t Filled(int stage) const {
    return stages + kStages * kStageBytes + stage * 16;
  }
  __device__ uint32_t Free(int stage) const { return Filled(stage) + 8; }
};

template <int kRows, int kStages>
class TmaProducer {
 public:
  __device__ TmaProducer(const SkinnyKernelParams& params, const SkinnyTensorMaps& maps,
                         const TmaRing<kRows, kStages>& ring)
      : params_(params), maps_(maps), ring_(ring), policy_(ptx::EvictFirstPolicy()) {}

  // Orders all tiles of the block: of the first kStages the weights, which depend on no other
  // kernel, before x is waited for.
  __device__ void Run(int32_t begin, int32_t count) const {
    const SkinnyPartition& partition = params_.partition;
    const int32_t first = min(count, kStages);
    TileCursor tile(partition, begin);
    for (int stage = 0; stage < first; ++stage, tile.Next(partition)) CopyWeight(tile, stage);
    ptx::LaunchDependents();
    if (params_.dependent) {
      TileCursor further = tile;
      for (int i = first; i < min(count, kStages + params_.l2_prefetch_tiles); ++i) {
        PrefetchWeight(further);
        further.Next(partition);
      }
    }
    ptx::WaitForPredecessor();
    TileCursor waited(partition, begin);
    for (int stage = 0; stage < first; ++stage, waited.Next(partition)) CopyX(waited, stage);
    int stage = 0;
    uint32_t parity = 0;
    for (int i = first; i < count; ++i, tile.Next(partition)) {
      ptx::WaitForPhase(ring_.Free(stage), parity);
      CopyWeight(tile, stage);
      CopyX(tile, stage);
      if (++stage == kStages) {
        stage = 0;
        parity ^= 1;
      }
    }
  }

 private:
  static constexpr int kWarpBytes = 16 * kSkinnyBoxColumns * 2;  // of a warp's 16 features

  // Announces the bytes of the weight and of the x that follows.
  __device__ void CopyWeight(const TileCursor& tile, int stage) const {
    const uint32_t barrier = ring_.Filled(stage);
    const uint32_t to = ring_.Stage(stage);
    const int32_t k = tile.k_tile * kSkinnyBoxColumns;
    ptx::ArriveAndExpect(barrier, TmaRing<kRows, kStages>::kStageBytes);
    if (!params_.silu_mul) {
      ptx::CopyBox(to, maps_.weight, k, tile.row_tile * kSkinnyTileRows, 0, barrier, policy_);
      return;
    }
    for (int warp = 0; warp < kSkinnyWarps; ++warp) {
      ptx::CopyBox(to + warp * kWarpBytes, maps_.weight, k,
                   (tile.row_tile * kSkinnyWarps + warp) * 8, 0, barrier, policy_);
    }
  }

  __device__ void CopyX(const TileCursor& tile, int stage) const {
    ptx::CopyBox(ring_.Stage(stage) + kSkinnyTileRows * kSkinnyBoxColumns * 2, maps_.x,
                 tile.k_tile * kSkinnyBoxColumns, 0, ring_.Filled(stage));
  }

  __device__ void PrefetchWeight(const TileCursor& tile) const {
    const int32_t k = tile.k_tile * kSkinnyBoxColumns;
    if (!params_.silu_mul) {
      ptx::PrefetchBox(maps_.weight, k, tile.row_tile * kSkinnyTileRows, 0);
      return;
    }
    for (int warp = 0; warp < kSkinnyWarps; ++warp) {
      ptx::PrefetchBox(maps_.weight, k, (tile.row_tile * kSkinnyWarps + warp) * 8, 0);
    }
  }

  const SkinnyKernelParams& params_;
  const SkinnyTensorMaps& maps_;
  const TmaRing<kRows, kStages> ring_;
  const uint64_t policy_;
};

#endif  // __CUDA_ARCH__ >= 900

template <int kRows, int kStages>
__global__ void __launch_bounds__(kSkinnyTmaThreads, 2)
    SkinnyTmaKernel(const __grid_constant__ SkinnyKernelParams params,
                    const __grid_constant__ SkinnyTensorMaps maps) {
#if __CUDA_ARCH__ >= 900
  extern __shared__ __align__(128) uint8_t shared_memory[];
  const TmaRing<kRows, kStages> ring = {
      (ptx::SharedAddress(shared_memory) + kSkinnyBoxAlignment - 1) / kSkinnyBoxAlignment *
      kSkinnyBoxAlignment};
  const SkinnyPartition& partition = params.partition;
  const int32_t begin = partition.Begin(blockIdx.x);
  const int32_t count = partition.Begin(blockIdx.x + 1) - begin;
  if (threadIdx.x == kSkinnyThreads) {
    ptx::PrefetchMap(maps.weight);
    ptx::PrefetchMap(maps.x);
  }
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kStages; ++stage) {
      ptx::InitBarrier(ring.Filled(stage), 1);
      ptx::InitBarrier(ring.Free(stage), kSkinnyWarps);
    }
    ptx::FenceBarrierInit();
  }
  __syncthreads();
  if (threadIdx.x >= kSkinnyThreads) {
    if (threadIdx.x == kSkinnyThreads) {
      TmaProducer<kRows, kStages>(params, maps, ring).Run(begin, count);
    }
    return;
  }

  // What is written below, kernels before this one may still read.
  ptx::WaitForPredecessor();
  WarpSums<kRows> sums;
  sums.Clear();
  TileCursor tile(partition, begin);
  int stage = 0;
  uint32_t parity = 0;
  for (int32_t i = 0; i < count; ++i, tile.Next(partition)) {
    ptx::WaitForPhase(ring.Filled(stage), parity);
    MultiplyTile<kRows, kSkinnyBoxColumns>(ring.Stage(stage), sums);
    __syncwarp();
    if (threadIdx.x % 32 == 0) ptx::Arrive(ring.Free(stage));
    if (tile.k_tile == partition.k_tiles - 1 || i == count - 1) {
      if (CombineShares(params, tile.row_tile, sums)) StoreSums(params, tile.row_tile, sums);
      sums.Clear();
    }
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
#endif  // __CUDA_ARCH__ >= 900
}

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_LINEAR_SKINNY_TMA_KERNEL_CUH_
