// The prefill kernel for Hopper and its launch. After FlashAttention-3 (arXiv 2407.08608): warps
// specialised to load and to multiply, softmax of one key tile under the products of others.

#include <algorithm>
#include <bit>

#include "base/check.h"
#include "kernels/cuda/attention/hopper_prefill.cuh"
#include "kernels/cuda/attention/hopper_prefill_consume.cuh"
#include "kernels/cuda/attention/hopper_prefill_load.cuh"
#include "kernels/cuda/attention/launch.cuh"

namespace swaa::kernels::cuda {
namespace {

using namespace hopper;  // NOLINT(build/namespaces): the kernel is these parts put together

template <class T>
__device__ __forceinline__ void InitBarriers(Shared<T>& sm) {
  for (int i = 0; i < 2; ++i) {
    ptx::InitBarrier(ptx::SharedAddress(&sm.item_full[i]), 1);
    ptx::InitBarrier(ptx::SharedAddress(&sm.q_full[i]), 1);
    // The consumers' warps and the key loader.
    ptx::InitBarrier(ptx::SharedAddress(&sm.q_empty[i]), 4 * T::kGroups + 1);
  }
  for (int i = 0; i < T::kStages; ++i) {
    ptx::InitBarrier(ptx::SharedAddress(&sm.k_full[i]), 1);
    ptx::InitBarrier(ptx::SharedAddress(&sm.k_empty[i]), 4 * T::kGroups);
    ptx::InitBarrier(ptx::SharedAddress(&sm.v_full[i]), 1);
    ptx::InitBarrier(ptx::SharedAddress(&sm.v_empty[i]), 4 * T::kGroups);
  }
  ptx::FenceBarrierInit();
}

template <class T>
__global__ void __launch_bounds__(T::kThreads, 1)
    HopperPrefill(const PrefillParams p, const __grid_constant__ CUtensorMap q_map,
                  const __grid_constant__ CUtensorMap block_map,
                  const __grid_constant__ CUtensorMap page_map) {
  extern __shared__ __align__(1024) uint8_t memory[];
  Shared<T>& sm = *reinterpret_cast<Shared<T>*>(memory);
  if (threadIdx.x == 0) InitBarriers(sm);
  __syncthreads();
  ptx::LaunchDependents();
  const int group = threadIdx.x / 128;
  if (group == 0) {
    ptx::RegistersDown<T::kProducerRegisters>();
    if (threadIdx.x == 0) LoadKeys<T>(p, sm, &block_map, &page_map);
    if (threadIdx.x == 32) DrawItems<T>(p, sm, &q_map);
  } else {
    ptx::RegistersUp<T::kConsumerRegisters>();
    Consume<T>(p, sm, group - 1);
  }
}

// Calls f with the configuration of a head dimension.
template <class F>
auto ByHeadDim(int32_t head_dim, F&& f) {
  switch (head_dim) {
    case 64:
      return f(Prefill64());
    case 96:
      return f(Prefill96());
    default:
      SWAA_CHECK_EQ(head_dim, 128);
      return f(Prefill128());
  }
}

}  // namespace

PrefillGeometry HopperPrefillGeometry(int32_t head_dim) {
  return ByHeadDim(head_dim, []<class T>(T) {
    return PrefillGeometry{.query_rows = T::kRows,
                           .key_rows = kKeys,
                           .result_floats = T::kResultFloats,
                           .arrival_counts = T::kGroups};
  });
}

absl::Status PrepareHopperPrefill(int32_t head_dim) {
  return ByHeadDim(head_dim, []<class T>(T) {
    return AllowSharedBytes(HopperPrefill<T>, sizeof(Shared<T>), "prefill kernel for Hopper");
  });
}

void LaunchHopperPrefill(int32_t head_dim, const PrefillParams& params, const TensorMap& queries,
                         const PoolMaps& pool, const LaunchOptions& options) {
  ByHeadDim(head_dim, [&]<class T>(T) {
    LaunchAttentionKernel(
        HopperPrefill<T>, std::min(options.blocks, params.item_count), T::kThreads,
        sizeof(Shared<T>), options, params, std::bit_cast<CUtensorMap>(queries),
        std::bit_cast<CUtensorMap>(pool.block), std::bit_cast<CUtensorMap>(pool.page));
  });
}

}  // namespace swaa::kernels::cuda
