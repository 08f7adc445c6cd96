// The kernels of adapters' products. For few rows the first runs beside the product that is added
// to, which lets it begin when x is complete, and ends after it; so the second follows both.

#include <algorithm>
#include <cstdint>

#include "base/check.h"
#include "kernels/cuda/elementwise/launch.cuh"
#include "kernels/cuda/lora/expand.cuh"
#include "kernels/cuda/lora/lora.h"
#include "kernels/cuda/lora/shrink.cuh"
#include "kernels/cuda/ptx.cuh"

namespace swaa::kernels::cuda {
namespace {

// The launches of few rows, which a graph may hold, have as many blocks whatever the tiles: enough
// for every warp to have about one piece of work where each row has its own adapter.
constexpr int32_t kShrinkBlocks = 1;  // a multiprocessor
constexpr int32_t kExpandBlocks = 8;

// sums = down * x of all tiles. beside: x is complete when the kernel begins.
template <bool kBeside>
__global__ void __launch_bounds__(kLoraThreads)
    ShrinkKernel(const __grid_constant__ LoraArguments p) {
  ptx::LaunchDependents();
  if constexpr (!kBeside) ptx::WaitForPredecessor();
  const int32_t items = *p.rows.tile_count * p.rows.splits;
  const auto blocks = static_cast<int32_t>(gridDim.x);
  for (auto i = static_cast<int32_t>(blockIdx.x); i < items; i += blocks) {
    Shrink(p, p.rows.tiles[i / p.rows.splits], i % p.rows.splits);
  }
  if constexpr (kBeside) ptx::WaitForPredecessor();
}

// Asks the part of the adapter's matrices for the warp's 32 outputs into L2.
__device__ __forceinline__ void PrefetchUp(const LoraArguments& p, const LoraTile& tile,
                                           int32_t first_output) {
  const LoraDeviceWeight* weight = WeightOf(p, tile);
  if (weight == nullptr) return;
  for (int32_t i = 0; i < weight->num_parts; ++i) {
    const LoraDevicePart& part = weight->parts[i];
    const int32_t output =
        first_output + static_cast<int32_t>(threadIdx.x % 32) - part.first_output;
    if (output >= 0 && output < part.outputs) {
      ptx::PrefetchL2(part.up + int64_t{output} * part.rank);
    }
  }
}

template <bool kGated>
__global__ void __launch_bounds__(kLoraThreads)
    ExpandKernel(const __grid_constant__ LoraArguments p) {
  ptx::LaunchDependents();
  // Gating concerns rows without an adapter, too; their tiles come last.
  const int32_t tiles = kGated ? *p.rows.all_tile_count : *p.rows.tile_count;
  const auto outputs = static_cast<int32_t>(kGated ? p.out_features / 2 : p.out_features);
  const int32_t units = (outputs + kWarpOutputs - 1) / kWarpOutputs;  // of a tile
  const auto first = static_cast<int32_t>(blockIdx.x * kLoraWarps + threadIdx.x / 32);
  const auto step = static_cast<int32_t>(gridDim.x * kLoraWarps);
  for (int32_t i = first; i < tiles * units; i += step) {
    const LoraTile& tile = p.rows.tiles[i / units];
    PrefetchUp(p, tile, i % units * kWarpOutputs);
    if (kGated) PrefetchUp(p, tile, outputs + i % units * kWarpOutputs);
  }
  ptx::WaitForPredecessor();
  for (int32_t i = first; i < tiles * units; i += step) {
    if constexpr (kGated) {
      ExpandGated(p, p.rows.tiles[i / units], i % units * kWarpOutputs);
    } else {
      Expand(p, p.rows.tiles[i / units], i % units * kWarpOutputs);
    }
  }
}

template <bool kGated>
void LaunchLora(const LoraArguments& p, int32_t multiprocessors, const Launch& launch) {
  const dim3 threads(kLoraThreads);
  if (p.rows.splits > 1) {
    LaunchKernel(ShrinkKernel<true>, dim3(kShrinkBlocks * multiprocessors), threads, launch, p);
    LaunchKernel(ExpandKernel<kGated>, dim3(kExpandBlocks * multiprocessors), threads, launch, p);
    return;
  }
  if (p.rows.max_tiles > 0) {
    LaunchKernel(ShrinkKernel<false>, dim3(p.rows.max_tiles), threads, launch, p);
  }
  const int64_t outputs = kGated ? p.out_features / 2 : p.out_features;
  const int64_t tiles = kGated ? p.rows.max_all_tiles : p.rows.max_tiles;
  const int64_t units = (outputs + kWarpOutputs - 1) / kWarpOutputs * tiles;
  if (units == 0) return;
  LaunchKernel(ExpandKernel<kGated>, dim3((units + kLoraWarps - 1) / kLoraWarps), threads, launch,
               p);
}

}  // namespace

void AddLora(const LoraArguments& arguments, int32_t multiprocessors, const Launch& launch) {
  SWAA_CHECK_EQ(arguments.out_features % 8, 0);
  if (arguments.gated != nullptr) {
    LaunchLora<true>(arguments, multiprocessors, launch);
  } else {
    LaunchLora<false>(arguments, multiprocessors, launch);
  }
}

}  // namespace swaa::kernels::cuda
