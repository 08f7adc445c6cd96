// The kernel of skinny products for Hopper: one thread orders boxes of weight and x into a ring in
// shared memory by the copy engine, warpgroups of 64 rows of the tile each multiply them from
// there. Blocks that share a row of tiles are a cluster and send their sums to each other's shared
// memory, where they are added in the order of the blocks' rank.
//
// Memory shall not idle between two products: the next kernel may start as soon as the first copies
// are on their way, its blocks fit beside this one's and fill their rings before they wait for x.

#ifndef SWAA_KERNELS_CUDA_LINEAR_SKINNY_HOPPER_KERNEL_CUH_
#define SWAA_KERNELS_CUDA_LINEAR_SKINNY_HOPPER_KERNEL_CUH_

#include <cstdint>

#include "kernels/cuda/hopper_ptx.cuh"
#include "kernels/cuda/linear/skinny_hopper_grid.h"
#include "kernels/cuda/linear/skinny_tensor_map.h"
#include "kernels/cuda/linear/skinny_tile.cuh"
#include "kernels/cuda/linear/skinny_wgmma.cuh"
#include "kernels/cuda/ptx.cuh"

namespace swaa::kernels::cuda {

struct SkinnyHopperParams {
  SkinnyOutput out;
  SkinnyHopperGrid grid;
  int32_t stages;  // at most kSkinnyMaxStages
  bool shares_x;   // as LinearArguments has it
};

inline constexpr int kSkinnyMaxStages = 16;
// Boxes lie at multiples of 1024 bytes, where the engine's swizzle begins anew.
inline constexpr int kSkinnyBoxAlignment = 1024;

constexpr int32_t SkinnyWarpgroups(const SkinnyHopperGrid& grid) {
  return (grid.tile_rows + 63) / 64;
}
constexpr int32_t SkinnyHopperThreads(const SkinnyHopperGrid& grid) {
  return SkinnyWarpgroups(grid) * 128 + 32;  // the last warp orders
}
// Those that have sums of the tile's rows; of a warpgroup's 64 some may lie beyond it.
constexpr int32_t SkinnySumThreads(const SkinnyHopperGrid& grid) {
  return (grid.tile_rows + 15) / 16 * 32;
}
constexpr int32_t SkinnyHopperStageBytes(const SkinnyHopperGrid& grid, int32_t rows) {
  return (grid.tile_rows + rows) * kSkinnyBoxColumns * 2;
}
// Two barriers a stage, and one of the sums that come from other blocks.
inline constexpr int kSkinnyBarrierBytes = (kSkinnyMaxStages + 1) * 16;
// Shared memory: barriers, what aligning the ring may cost, the ring, and behind it the sums that
// come from other blocks, where a warpgroup also reads beyond the tile in the last stage.
constexpr int32_t SkinnyHopperSharedBytes(const SkinnyHopperGrid& grid, int32_t rows,
                                          int32_t stages) {
  const int32_t beyond =
      (SkinnyWarpgroups(grid) * 64 - grid.tile_rows - rows) * kSkinnyBoxColumns * 2;
  const int32_t owned = (rows / 8 + grid.cluster - 1) / grid.cluster;  // eights of rows
  const int32_t sums = (grid.cluster - 1) * owned * SkinnySumThreads(grid) * 16;
  return kSkinnyBarrierBytes + kSkinnyBoxAlignment + stages * SkinnyHopperStageBytes(grid, rows) +
         (beyond > sums ? beyond : sums);
}

// wgmma is Hopper's alone.
#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// A stage is filled when its copies have arrived, and free when all warps are done with it.
struct SkinnyRing {
  uint32_t barriers;  // shared memory
  uint32_t memory;
  int32_t stage_bytes;

  __device__ uint32_t Stage(int stage) const { return memory + stage * stage_bytes; }
  __device__ uint32_t Filled(int stage) const { return barriers + stage * 16; }
  __device__ uint32_t Free(int stage) const { return Filled(stage) + 8; }
};

// A place in a ring of `stages`, and the parity of its use.
struct RingCursor {
  int32_t stage = 0;
  uint32_t parity = 0;
  __device__ void Next(int32_t stages) {
    if (++stage < stages) return;
    stage = 0;
    parity ^= 1;
  }
};

struct SkinnyTileCursor {
  int32_t row, k;
  __device__ explicit SkinnyTileCursor(const SkinnyTileRange& range)
      : row(range.row_begin), k(range.k_begin) {}
  __device__ void Next(const SkinnyTileRange& range) {
    if (++k < range.k_end) return;
    k = range.k_begin;
    ++row;
  }
};

class SkinnyProducer {
 public:
  __device__ SkinnyProducer(const SkinnyHopperParams& params, const SkinnyTensorMaps& maps,
                            const SkinnyRing& ring, const SkinnyTileRange& range)
      : params_(params), maps_(maps), ring_(ring), range_(range) {}

  // Orders all tiles of the block: of the first stages the weights, which depend on no other
  // kernel, before x is waited for.
  __device__ void Run() const {
    const int32_t count = range_.count();
    const int32_t first = min(count, params_.stages);
    SkinnyTileCursor tile(range_);
    for (int stage = 0; stage < first; ++stage, tile.Next(range_)) CopyWeight(tile, stage);
    if (!params_.shares_x) ptx::LaunchDependents();
    ptx::WaitForPredecessor();
    if (params_.shares_x) ptx::LaunchDependents();
    SkinnyTileCursor waited(range_);
    for (int stage = 0; stage < first; ++stage, waited.Next(range_)) CopyX(waited, stage);
    RingCursor at;
    for (int32_t i = first; i < count; ++i, tile.Next(range_), at.Next(params_.stages)) {
      ptx::WaitForPhase(ring_.Free(at.stage), at.parity);
      CopyWeight(tile, at.stage);
      CopyX(tile, at.stage);
    }
  }

 private:
  // Announces the bytes of the weight and of the x that follows.
  __device__ void CopyWeight(const SkinnyTileCursor& tile, int stage) const {
    const int32_t tile_rows = params_.grid.tile_rows;
    const uint32_t barrier = ring_.Filled(stage);
    const uint32_t to = ring_.Stage(stage);
    const int32_t k = tile.k * kSkinnyBoxColumns;
    ptx::ArriveAndExpect(barrier, ring_.stage_bytes);
    if (params_.out.silu_mul) {
      ptx::CopyBox(to, maps_.weight, k, 0, 0, tile.row * (tile_rows / 16), barrier,
                   ptx::kEvictFirst);
    } else {
      ptx::CopyBox(to, maps_.weight, k, tile.row * tile_rows, barrier, ptx::kEvictFirst);
    }
  }

  __device__ void CopyX(const SkinnyTileCursor& tile, int stage) const {
    ptx::CopyBox(ring_.Stage(stage) + params_.grid.tile_rows * kSkinnyBoxColumns * 2, maps_.x,
                 tile.k * kSkinnyBoxColumns, 0, ring_.Filled(stage));
  }

  const SkinnyHopperParams& params_;
  const SkinnyTensorMaps& maps_;
  const SkinnyRing ring_;
  const SkinnyTileRange range_;
};

// Four finished sums of 16 rows of the tile, of WarpSums's layout: `unit` counts 16 rows, j eight
// rows of x.
__device__ __forceinline__ void StoreQuad(const SkinnyHopperParams& params, int32_t row_tile,
                                          int32_t unit, int32_t j, int32_t lane,
                                          const float (&sums)[4]) {
  const SkinnyOutput& out = params.out;
  const int32_t tile_rows = params.grid.tile_rows;
  const int32_t row = j * 8 + lane % 4 * 2;
  if (out.silu_mul) {
    const int32_t feature = row_tile * (tile_rows / 2) + unit * 8 + lane / 4;
    if (unit * 16 < tile_rows) StoreFeatures(out, feature, out.features + feature, row, sums);
    return;
  }
  const int32_t feature = row_tile * tile_rows + unit * 16 + lane / 4;
  // Half a unit is beyond the tile where its rows are no multiple of 16.
  const int32_t second = unit * 16 + 8 < tile_rows ? feature + 8 : out.features;
  if (unit * 16 < tile_rows) StoreFeatures(out, feature, second, row, sums);
}

template <int kRows>
__device__ __forceinline__ void StoreTile(const SkinnyHopperParams& params, int32_t row_tile,
                                          const WarpSums<kRows>& sums) {
#pragma unroll
  for (int j = 0; j < kRows / 8; ++j) {
    StoreQuad(params, row_tile, threadIdx.x / 32, j, threadIdx.x % 32, sums.values[j]);
  }
}

// The sums of a row of tiles that a cluster shares. Eight rows of x are added up by one of its
// blocks, the j-th eight by rank j % cluster; the others send it what they have.
template <int kRows>
class SkinnyClusterSums {
 public:
  __device__ SkinnyClusterSums(const SkinnyHopperParams& params, const SkinnyRing& ring)
      : params_(params),
        barrier_(ring.barriers + kSkinnyMaxStages * 16),
        memory_(ring.Stage(params.stages)),
        cluster_(params.grid.cluster),
        rank_(blockIdx.x % params.grid.cluster),
        eights_(min(kRows / 8, (params.out.rows + 7) / 8)),
        threads_(SkinnySumThreads(params.grid)) {}

  // By one thread, before the cluster's threads meet.
  __device__ void Expect() const {
    const int32_t owned = (eights_ - rank_ + cluster_ - 1) / cluster_;
    ptx::InitBarrier(barrier_, 1);
    ptx::ArriveAndExpect(barrier_, owned * (cluster_ - 1) * threads_ * 16);
  }

  // By all consumers.
  __device__ void Store(int32_t row_tile, const WarpSums<kRows>& sums) const {
    if (threadIdx.x >= threads_) return;
#pragma unroll
    for (int j = 0; j < kRows / 8; ++j) {
      if (j < eights_ && j % cluster_ != rank_)
        ptx::StoreAsync(Slot(j, rank_), sums.values[j], barrier_, j % cluster_);
    }
    if (rank_ >= eights_) return;
    ptx::WaitForPhase(barrier_, 0);
#pragma unroll
    for (int j = 0; j < kRows / 8; ++j) {
      if (j >= eights_ || j % cluster_ != rank_) continue;
      float total[4] = {0, 0, 0, 0};
      for (int32_t block = 0; block < cluster_; ++block) {
        float part[4] = {sums.values[j][0], sums.values[j][1], sums.values[j][2],
                         sums.values[j][3]};
        if (block != rank_) ptx::LoadShared(part, Slot(j, block));
#pragma unroll
        for (int v = 0; v < 4; ++v) total[v] += part[v];
      }
      StoreQuad(params_, row_tile, threadIdx.x / 32, j, threadIdx.x % 32, total);
    }
  }

 private:
  // Where the j-th eight's owner has what this thread of block `from`, another one, sends it.
  __device__ uint32_t Slot(int32_t j, int32_t from) const {
    const int32_t other = from - (from > j % cluster_);
    return memory_ + ((j / cluster_ * (cluster_ - 1) + other) * threads_ + threadIdx.x) * 16;
  }

  const SkinnyHopperParams& params_;
  const uint32_t barrier_, memory_;
  const int32_t cluster_, rank_, eights_, threads_;
};

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

template <int kRows>
__global__ void __launch_bounds__(kSkinnyMaxTileRows * 2 + 32, 2)
    SkinnyHopperKernel(const __grid_constant__ SkinnyHopperParams params,
                       const __grid_constant__ SkinnyTensorMaps maps) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(128) uint8_t shared_memory[];
  const uint32_t barriers = ptx::SharedAddress(shared_memory);
  const SkinnyRing ring = {.barriers = barriers,
                           .memory = (barriers + kSkinnyBarrierBytes + kSkinnyBoxAlignment - 1) /
                                     kSkinnyBoxAlignment * kSkinnyBoxAlignment,
                           .stage_bytes = SkinnyHopperStageBytes(params.grid, kRows)};
  const int32_t consumers = SkinnyWarpgroups(params.grid) * 128;
  const SkinnyTileRange range(params.grid, static_cast<int32_t>(blockIdx.x));
  const int32_t thread = threadIdx.x;
  const bool is_shared = params.grid.cluster > 1;
  const SkinnyClusterSums<kRows> shared_sums(params, ring);
  if (thread == consumers) {
    ptx::PrefetchMap(maps.weight);
    ptx::PrefetchMap(maps.x);
    for (int stage = 0; stage < params.stages; ++stage) {
      ptx::InitBarrier(ring.Filled(stage), 1);
      ptx::InitBarrier(ring.Free(stage), consumers / 32);
    }
    if (is_shared) shared_sums.Expect();
    ptx::FenceBarrierInit();
  }
  if (is_shared) {
    ptx::ClusterArrive();
    ptx::ClusterWait();
  } else {
    __syncthreads();
  }

  WarpSums<kRows> sums;
  sums.Clear();
  if (thread >= consumers) {
    if (thread == consumers) SkinnyProducer(params, maps, ring, range).Run();
    __syncwarp();
  } else {
    // What is written below, kernels before this one may still read.
    ptx::WaitForPredecessor();
    RingCursor at;
    for (int32_t row = range.row_begin; row < range.row_end; ++row) {
      for (int32_t k = range.k_begin; k < range.k_end; ++k, at.Next(params.stages)) {
        ptx::WaitForPhase(ring.Filled(at.stage), at.parity);
        MultiplyTileByWarpgroup<kRows>(ring.Stage(at.stage), params.grid.tile_rows, sums);
        if (thread % 32 == 0) ptx::Arrive(ring.Free(at.stage));
      }
      if (is_shared) {
        shared_sums.Store(row, sums);
        break;
      }
      StoreTile<kRows>(params, row, sums);
      sums.Clear();
    }
  }
#endif  // __CUDA_ARCH_FEAT_SM90_ALL
}

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_LINEAR_SKINNY_HOPPER_KERNEL_CUH_
