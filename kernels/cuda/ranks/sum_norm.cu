// Sums over ranks, fused with the residual add and the norm that follow: one pass over NVLink, no
// copy of the sum, and no kernel of its own. Large deltas every GPU reads where they lie, after a
// word that they are there. Small ones are sent to it, half of every eight bytes the number of the
// sum, so that what arrives says itself that it is there (as NCCL's LL protocol has it): one way
// over the link instead of three.

#include <algorithm>

#include "base/check.h"
#include "kernels/cuda/elementwise/block_sum.cuh"
#include "kernels/cuda/elementwise/launch.cuh"
#include "kernels/cuda/elementwise/vector8.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/ranks/sum_norm.h"

namespace swaa::kernels::cuda {
namespace {

constexpr int kMaxThreads = 1024;
constexpr int kPlaceThreads = 256;
// Looks at a flag in memory between two at the host's word, which is far away.
constexpr uint32_t kLooks = 1 << 14;

__device__ __forceinline__ void StoreToPeer(uint32_t* to, uint32_t value) {
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(to), "r"(value) : "memory");
}

__device__ __forceinline__ uint32_t LoadFromPeer(const uint32_t* from) {
  uint32_t value;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
}

__device__ __forceinline__ void Send(uint4* to, uint32_t first, uint32_t second, uint32_t sum) {
  asm volatile("st.volatile.global.v4.u32 [%0], {%1, %3, %2, %3};" ::"l"(to), "r"(first),
               "r"(second), "r"(sum)
               : "memory");
}

__device__ __forceinline__ uint4 LoadSent(const uint4* from) {
  uint4 sent;
  asm volatile("ld.volatile.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(sent.x), "=r"(sent.y), "=r"(sent.z), "=r"(sent.w)
               : "l"(from)
               : "memory");
  return sent;
}

// Not cached by a multiprocessor: what lies there changes behind its back.
__device__ __forceinline__ Vector8 Load8OfPeer(const Bf16* from) {
  uint4 packed;
  asm volatile("ld.relaxed.sys.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(packed.x), "=r"(packed.y), "=r"(packed.z), "=r"(packed.w)
               : "l"(from)
               : "memory");
  return Unpack8(packed);
}

__device__ __forceinline__ bool Aborted(const RankBuffers& ranks) {
  return *static_cast<const volatile uint32_t*>(ranks.aborted) != 0;
}

// Tells all peers that this rank has come to the sum, and waits until they have. Every block does
// both, so that it does not matter which of them run first. Returns whether they have: else nobody
// is to touch their memory any more.
__device__ __forceinline__ bool MeetPeers(const RankBuffers& ranks, uint32_t sum) {
  const uint32_t* const mine = ranks.signals[ranks.rank];
  bool aborted = false;
  const auto peer = static_cast<int32_t>(threadIdx.x);
  if (peer < ranks.size && peer != ranks.rank) {
    StoreToPeer(ranks.signals[peer] + ranks.rank, sum);
    for (uint32_t looks = 1; static_cast<int32_t>(LoadFromPeer(mine + peer) - sum) < 0; ++looks) {
      if (looks % kLooks != 0) continue;
      aborted = Aborted(ranks);
      if (aborted) break;
    }
  }
  return __syncthreads_or(static_cast<int>(aborted)) == 0;
}

// Where rank `from` sends vector `at` of the delta to rank `to`.
template <int kRanks>
__device__ __forceinline__ uint4* Box(const RankBuffers& ranks, int to, int from, uint32_t sum,
                                      int64_t at) {
  auto* const boxes = reinterpret_cast<uint4*>(ranks.signals[to] + SumSignals::kBoxes);
  return boxes + 2 * ((sum % 2 * kRanks + from) * (SumSignals::kMostSent / 8) + at);
}

// Sends this rank's vector `at` to all others, and returns it.
template <int kRanks>
__device__ __forceinline__ Vector8 SendVector(const RankBuffers& ranks, uint32_t sum, int64_t at) {
  const uint4 mine = *reinterpret_cast<const uint4*>(ranks.buffers[ranks.rank] + at * 8);
#pragma unroll
  for (int to = 0; to < kRanks; ++to) {
    if (to == ranks.rank) continue;
    uint4* const box = Box<kRanks>(ranks, to, ranks.rank, sum, at);
    Send(box, mine.x, mine.y, sum);
    Send(box + 1, mine.z, mine.w, sum);
  }
  return Unpack8(mine);
}

// Waits for vector `at` of rank `from`; anything, once the ranks have been aborted.
template <int kRanks>
__device__ __forceinline__ Vector8 ReceiveVector(const RankBuffers& ranks, int from, uint32_t sum,
                                                 int64_t at) {
  const uint4* const box = Box<kRanks>(ranks, ranks.rank, from, sum, at);
  for (uint32_t looks = 1;; ++looks) {
    const uint4 low = LoadSent(box), high = LoadSent(box + 1);
    const bool there = low.y == sum && low.w == sum && high.y == sum && high.w == sum;
    if (there || (looks % kLooks == 0 && Aborted(ranks))) {
      return Unpack8({low.x, low.z, high.x, high.z});
    }
  }
}

// kVectors: as AddNormKernel has it. kSends: deltas are sent.
template <int kRanks, int kVectors, bool kSends>
__global__ void __launch_bounds__(kMaxThreads)
    SumNormKernel(const __grid_constant__ SumNormParams p) {
  ptx::LaunchDependents();
  const int vectors = static_cast<int>(p.hidden / 8);
  Vector8 weight[kVectors];
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const int at = threadIdx.x + i * blockDim.x;
    if (at < vectors) weight[i] = Load8(p.weight + at * 8);
  }
  ptx::WaitForPredecessor();
  const RankBuffers& ranks = p.deltas;
  uint32_t* const mine = ranks.signals[ranks.rank];
  const uint32_t sum = *static_cast<volatile uint32_t*>(mine + SumSignals::kSums) + 1;
  const int64_t row = int64_t{blockIdx.x} * p.hidden;
  Vector8 own[kVectors];
  if constexpr (kSends) {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      const int at = threadIdx.x + i * blockDim.x;
      if (at < vectors) own[i] = SendVector<kRanks>(ranks, sum, row / 8 + at);
    }
  } else {
    if (!MeetPeers(ranks, sum)) return;
  }
  Vector8 x[kVectors];
  float squares = 0;
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const int at = threadIdx.x + i * blockDim.x;
    if (at >= vectors) continue;
    x[i] = Load8(p.residual + row + at * 8);
    Vector8 deltas[kRanks];
#pragma unroll
    for (int r = 0; r < kRanks; ++r) {
      if constexpr (!kSends) {
        deltas[r] = Load8OfPeer(ranks.buffers[r] + row + at * 8);
      } else if (r == ranks.rank) {
        deltas[r] = own[i];
      } else {
        deltas[r] = ReceiveVector<kRanks>(ranks, r, sum, row / 8 + at);
      }
    }
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      float added = deltas[0].v[j];
#pragma unroll
      for (int r = 1; r < kRanks; ++r) added += deltas[r].v[j];
      x[i].v[j] += added;
      squares += x[i].v[j] * x[i].v[j];
    }
    Store8(p.residual + row + at * 8, x[i]);
  }
  const float inverse = rsqrtf(BlockSum(squares) / static_cast<float>(p.hidden) + p.epsilon);
  // All of the block have read the number of the sum, which the last block raises.
  if (threadIdx.x == 0) {
    const uint32_t last = gridDim.x - 1;
    if (last == 0 || ptx::CountArrival(mine + SumSignals::kBlocks, last) == last) {
      mine[SumSignals::kSums] = sum;
    }
  }
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const int at = threadIdx.x + i * blockDim.x;
    if (at >= vectors) continue;
    Vector8 out;
#pragma unroll
    for (int j = 0; j < 8; ++j) out.v[j] = x[i].v[j] * inverse * weight[i].v[j];
    Store8(p.out + row + at * 8, out);
  }
}

template <int kRanks, int kVectors>
void LaunchSumNorm(const SumNormParams& params, int threads, const Launch& launch) {
  const bool sends = params.rows * params.hidden <= SumSignals::kMostSent;
  const auto kernel =
      sends ? SumNormKernel<kRanks, kVectors, true> : SumNormKernel<kRanks, kVectors, false>;
  LaunchKernel(kernel, dim3(params.rows), dim3(threads), launch, params);
}

template <int kRanks>
void LaunchSumNorm(const SumNormParams& params, const Launch& launch) {
  const auto vectors = static_cast<int>(params.hidden / 8);
  const int threads = std::min(kMaxThreads, (vectors + 31) / 32 * 32);
  if (vectors <= threads) {
    LaunchSumNorm<kRanks, 1>(params, threads, launch);
  } else {
    LaunchSumNorm<kRanks, 2>(params, threads, launch);
  }
}

__global__ void __launch_bounds__(kPlaceThreads)
    PlaceColumnsKernel(const __grid_constant__ PlaceColumnsParams p) {
  BeginKernel();
  const int64_t column = int64_t{blockIdx.x} * kPlaceThreads + threadIdx.x, row = blockIdx.y;
  if (column >= p.columns) return;
  const int64_t rank = column / p.most, first = rank * p.most;
  const int64_t its_columns = min(p.most, p.columns - first);
  p.all[row * p.columns + column] = p.gathered[first * p.rows + row * its_columns + column - first];
}

}  // namespace

bool SumNormServes(int32_t ranks) { return ranks == 2 || ranks == 4 || ranks == 8; }

void SumNorm(const SumNormParams& params, const Launch& launch) {
  SWAA_CHECK(params.hidden % 8 == 0 && params.hidden > 0 && params.hidden <= 2 * 8 * kMaxThreads)
      << params.hidden;
  if (params.rows == 0) return;
  switch (params.deltas.size) {
    case 2:
      return LaunchSumNorm<2>(params, launch);
    case 4:
      return LaunchSumNorm<4>(params, launch);
    case 8:
      return LaunchSumNorm<8>(params, launch);
    default:
      SWAA_CHECK(false) << params.deltas.size << " ranks";
  }
}

void PlaceColumns(const PlaceColumnsParams& params, const Launch& launch) {
  if (params.rows == 0) return;
  const int64_t blocks = (params.columns + kPlaceThreads - 1) / kPlaceThreads;
  LaunchKernel(PlaceColumnsKernel, dim3(blocks, params.rows), dim3(kPlaceThreads), launch, params);
}

}  // namespace swaa::kernels::cuda
