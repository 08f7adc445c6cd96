// Routing: each row's experts and their shares, and the pairs of rows and experts sorted by expert.
// Few rows are routed and sorted by one block; many by two kernels, the second with a block an
// expert.

#include <cstdint>

#include "kernels/cuda/elementwise/launch.cuh"
#include "kernels/cuda/experts/stages.h"

namespace swaa::kernels::cuda {
namespace {

constexpr uint32_t kAll = 0xffffffffu;

constexpr int kSmallThreads = 512;  // as many as experts
constexpr int32_t kSmallPairs = 256;
constexpr int kRouteThreads = 256;
constexpr int kSortThreads = 512;
constexpr int kPairsPerThread = 8;
static_assert(kSmallThreads >= kMaxExperts && kSortThreads >= kMaxExperts);

// Orders floats as unsigned integers do; any NaN has a place too, so that something is always
// chosen. 0 and -0 are equal.
__device__ __forceinline__ uint32_t OrderedBits(float value) {
  const uint32_t bits = __float_as_uint(value + 0.0f);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

// A warp's row: lane i < experts_per_row gets its i-th expert and share.
struct Choice {
  int32_t expert = -1;
  float share = 0;
};

__device__ __forceinline__ float SumOverWarp(float value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(kAll, value, offset);
  return value;
}

// Lane l has experts l, l + 32, ..: kLogitsPerLane at most.
template <int kLogitsPerLane>
__device__ Choice ChooseExperts(const RouteParams& p, int32_t row) {
  const int32_t lane = static_cast<int32_t>(threadIdx.x % 32);
  const float* logits = p.logits + int64_t{row} * p.experts;
  uint32_t keys[kLogitsPerLane];  // of experts lane, lane + 32, ..; 0: none, or taken
  float values[kLogitsPerLane];
#pragma unroll
  for (int i = 0; i < kLogitsPerLane; ++i) {
    const int32_t expert = i * 32 + lane;
    const bool exists = expert < p.experts;
    values[i] = exists ? logits[expert] : 0.0f;
    keys[i] = exists ? max(OrderedBits(values[i]), 1u) : 0u;
  }
  Choice choice;
  float logit = 0, largest = 0;
  for (int32_t n = 0; n < p.experts_per_row; ++n) {
    uint32_t best = 0;
    int32_t at = 0;
#pragma unroll
    for (int i = 0; i < kLogitsPerLane; ++i) {
      if (keys[i] > best) {
        best = keys[i];
        at = i;
      }
    }
    const uint32_t top = __reduce_max_sync(kAll, best);
    // Of equal ones the lowest; a lane's are visited in order.
    const uint32_t mine = best == top ? static_cast<uint32_t>(at * 32 + lane) : kAll;
    const auto expert = static_cast<int32_t>(__reduce_min_sync(kAll, mine));
    float value = 0;
#pragma unroll
    for (int i = 0; i < kLogitsPerLane; ++i) {
      if (i * 32 + lane == expert) {
        keys[i] = 0;
        value = values[i];
      }
    }
    value = __shfl_sync(kAll, value, expert % 32);
    if (n == 0) largest = value;
    if (lane == n) {
      choice.expert = expert;
      logit = value;
    }
  }
  choice.share = lane < p.experts_per_row ? expf(logit - largest) : 0.0f;
  float sum = choice.share;
  if (!p.normalize) {
    sum = 0;
#pragma unroll
    for (int i = 0; i < kLogitsPerLane; ++i) {
      if (i * 32 + lane < p.experts) sum += expf(values[i] - largest);
    }
  }
  choice.share /= SumOverWarp(sum);
  return choice;
}

// Chooses for the row, and writes it down; returns the lane's expert, or -1.
template <int kLogitsPerLane>
__device__ __forceinline__ int32_t RouteRow(const RouteParams& p, int32_t row) {
  const int32_t lane = static_cast<int32_t>(threadIdx.x % 32);
  const bool live = p.slots == nullptr || p.slots[row] >= 0;
  Choice choice;
  if (live) choice = ChooseExperts<kLogitsPerLane>(p, row);
  if (lane < p.experts_per_row) {
    const int64_t at = int64_t{row} * p.experts_per_row + lane;
    p.routes.experts[at] = choice.expert;
    p.routes.shares[at] = choice.share;
    if (!live) p.routes.places[at] = -1;
  }
  return choice.expert;
}

// Inclusive sums of a value a thread over the block of kThreads; memory: [kThreads / 32].
template <int kThreads>
__device__ __forceinline__ int32_t ScanBlock(int32_t value, int32_t* memory) {
  const int32_t lane = static_cast<int32_t>(threadIdx.x % 32), warp = threadIdx.x / 32;
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const int32_t before = __shfl_up_sync(kAll, value, offset);
    if (lane >= offset) value += before;
  }
  if (lane == 31) memory[warp] = value;
  __syncthreads();
  int32_t below = 0;
  for (int32_t w = 0; w < warp; ++w) below += memory[w];
  __syncthreads();
  return value + below;
}

__device__ __forceinline__ void WriteTiles(const RouteParams& p, int32_t expert, int32_t first,
                                           int32_t count, int32_t first_tile) {
  for (int32_t at = 0; at < count; at += p.tile_pairs) {
    p.routes.tiles[first_tile++] = {expert, first + at, min(p.tile_pairs, count - at), 0};
  }
}

// One block: warps route rows in turn, then each thread gathers one expert's pairs.
template <int kLogitsPerLane>
__global__ void __launch_bounds__(kSmallThreads)
    RouteFewRows(const __grid_constant__ RouteParams p) {
  __shared__ int32_t experts[kSmallPairs];
  __shared__ int32_t sums[kSmallThreads / 32];
  BeginKernel();
  const auto thread = static_cast<int32_t>(threadIdx.x);
  for (int32_t row = thread / 32; row < p.rows; row += kSmallThreads / 32) {
    const int32_t expert = RouteRow<kLogitsPerLane>(p, row);
    if (thread % 32 < p.experts_per_row) {
      experts[row * p.experts_per_row + thread % 32] = expert;
    }
  }
  __syncthreads();
  const int32_t pairs = p.rows * p.experts_per_row;
  int32_t count = 0;
  if (thread < p.experts) {
#pragma unroll 8
    for (int32_t i = 0; i < pairs; ++i) count += experts[i] == thread ? 1 : 0;
  }
  const int32_t tiles = (count + p.tile_pairs - 1) / p.tile_pairs;
  const int32_t first = ScanBlock<kSmallThreads>(count, sums) - count;
  const int32_t end_tile = ScanBlock<kSmallThreads>(tiles, sums);
  if (thread == kSmallThreads - 1) *p.routes.tile_count = end_tile;
  if (count == 0) return;
  WriteTiles(p, thread, first, count, end_tile - tiles);
  int32_t place = first;
#pragma unroll 8
  for (int32_t i = 0; i < pairs; ++i) {
    if (experts[i] != thread) continue;
    p.routes.places[i] = place;
    p.routes.rows[place++] = i / p.experts_per_row;
  }
}

template <int kLogitsPerLane>
__global__ void __launch_bounds__(kRouteThreads)
    RouteManyRows(const __grid_constant__ RouteParams p) {
  BeginKernel();
  const auto row = static_cast<int32_t>(blockIdx.x * (kRouteThreads / 32) + threadIdx.x / 32);
  if (row < p.rows) RouteRow<kLogitsPerLane>(p, row);
}

// The block's expert: counts all, to know where its pairs begin, and gathers its own.
__global__ void __launch_bounds__(kSortThreads) SortPairs(const __grid_constant__ RouteParams p) {
  __shared__ int32_t counts[kMaxExperts];
  __shared__ int32_t sums[kSortThreads / 32];
  __shared__ int32_t mine[3];  // first pair, count, first tile
  BeginKernel();
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const auto expert = static_cast<int32_t>(blockIdx.x);
  const int32_t pairs = p.rows * p.experts_per_row;
  for (int32_t e = thread; e < kMaxExperts; e += kSortThreads) counts[e] = 0;
  __syncthreads();
  for (int32_t i = thread; i < pairs; i += kSortThreads) {
    const int32_t e = p.routes.experts[i];
    if (e >= 0) atomicAdd(&counts[e], 1);
  }
  __syncthreads();
  const int32_t count = thread < kMaxExperts ? counts[thread] : 0;
  const int32_t tiles = (count + p.tile_pairs - 1) / p.tile_pairs;
  const int32_t first = ScanBlock<kSortThreads>(count, sums) - count;
  const int32_t end_tile = ScanBlock<kSortThreads>(tiles, sums);
  if (thread == expert) {
    mine[0] = first;
    mine[1] = count;
    mine[2] = end_tile - tiles;
    WriteTiles(p, expert, first, count, end_tile - tiles);
    if (expert == p.experts - 1) *p.routes.tile_count = end_tile;
  }
  __syncthreads();
  int32_t place = mine[0];
  const int32_t end = place + mine[1];
  for (int32_t begin = 0; begin < pairs && place < end; begin += kSortThreads * kPairsPerThread) {
    const int32_t from = begin + thread * kPairsPerThread;
    uint32_t found = 0;
#pragma unroll
    for (int i = 0; i < kPairsPerThread; ++i) {
      if (from + i < pairs && p.routes.experts[from + i] == expert) found |= 1u << i;
    }
    const int32_t here = __popc(found);
    const int32_t through = ScanBlock<kSortThreads>(here, sums);
    int32_t at = place + through - here;
#pragma unroll
    for (int i = 0; i < kPairsPerThread; ++i) {
      if ((found >> i & 1u) == 0) continue;
      p.routes.places[from + i] = at;
      p.routes.rows[at++] = (from + i) / p.experts_per_row;
    }
    if (thread == kSortThreads - 1) mine[0] = place + through;
    __syncthreads();
    place = mine[0];
    __syncthreads();
  }
}

template <int kLogitsPerLane>
void Route(const RouteParams& params, const Launch& launch) {
  if (params.rows * params.experts_per_row <= kSmallPairs) {
    LaunchKernel(RouteFewRows<kLogitsPerLane>, dim3(1), dim3(kSmallThreads), launch, params);
    return;
  }
  constexpr int32_t kRowsPerBlock = kRouteThreads / 32;
  LaunchKernel(RouteManyRows<kLogitsPerLane>,
               dim3((params.rows + kRowsPerBlock - 1) / kRowsPerBlock), dim3(kRouteThreads), launch,
               params);
  LaunchKernel(SortPairs, dim3(params.experts), dim3(kSortThreads), launch, params);
}

}  // namespace

void RouteRows(const RouteParams& params, const Launch& launch) {
  if (params.experts <= 128) {
    Route<4>(params, launch);
  } else {
    Route<kMaxExperts / 32>(params, launch);
  }
}

}  // namespace swaa::kernels::cuda
