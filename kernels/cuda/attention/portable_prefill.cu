// The prefill kernel for any GPU since Ampere, after FlashAttention-2 (arXiv 2307.08691): a block
// is 128 query rows of one head against one page of keys after another; V of a page is loaded under
// its scores, K of the next under softmax and P V.

#include <type_traits>

#include "base/check.h"
#include "kernels/cuda/attention/launch.cuh"
#include "kernels/cuda/attention/plan_format.h"
#include "kernels/cuda/attention/portable_prefill.cuh"
#include "kernels/cuda/attention/prefill_params.h"

namespace swaa::kernels::cuda {
namespace {

using namespace portable;  // NOLINT(build/namespaces): the kernel is these parts put together

template <int kDim>
struct Shared {
  uint8_t q[kQueryRows * PortableLayout<kDim>::kRowBytes];  // later the output
  uint8_t k[kKeys * PortableLayout<kDim>::kRowBytes];
  uint8_t v[kKeys * PortableLayout<kDim>::kRowBytes];
  QueryTile tile;  // here because registers are short
  int is_last;
};

template <int kDim>
constexpr int kThreadFloats = kRowBlocks* kDim / 2 + 4 * kRowBlocks;

// Rows of the tile that do not exist become zero.
template <int kDim>
__device__ __forceinline__ void CopyQueries(const PrefillParams& p, const QueryTile& tile, int head,
                                            uint32_t to) {
  using Layout = PortableLayout<kDim>;
#pragma unroll
  for (int i = 0; i < kQueryRows * Layout::kChunks / kThreads; ++i) {
    const int at = i * kThreads + threadIdx.x, row = at / Layout::kChunks,
              chunk = at % Layout::kChunks;
    const bool exists = row >= tile.first && row <= tile.last;
    const int64_t from = exists ? static_cast<int64_t>(tile.out_row + row) * p.q_stride : 0;
    ptx::CopyAsyncLine(to + Layout::Offset(row, chunk), p.q + from + head * kDim + chunk * 8,
                       exists);
  }
}

// Runs the key tiles of the item; rows' sums are complete at the end.
template <int kDim>
__device__ __forceinline__ void VisitKeys(const PrefillParams& p, const QueryTile& tile, int head,
                                          Shared<kDim>& sm, RowState<kDim>& state) {
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, kv_head = head / p.group;
  const int position = tile.position + warp * kWarpRows;
  const uint32_t q = ptx::SharedAddress(sm.q), k = ptx::SharedAddress(sm.k),
                 v = ptx::SharedAddress(sm.v);
  const int32_t* pages = p.table + tile.slot * p.slot_stride;
  // K or V of a page, made when needed: pointers would take registers.
  const auto rows = [&](int page, int is_v) {
    return p.pool +
           static_cast<int64_t>((page * 2 + is_v) * p.kv_heads + kv_head) * (kPageTokens * kDim);
  };
  int page = pages[tile.visited.Tile(tile.begin)];
  ptx::WaitForPredecessor();
  CopyQueries<kDim>(p, tile, head, q);
  CopyRows<kDim, kKeys, kThreads>(k, 0, rows(page, 0), threadIdx.x);
  ptx::CommitCopies();
  state.Clear();
  for (int i = tile.begin; i < tile.end; ++i) {
    const int first_key = tile.visited.Tile(i) * kKeys;
    const bool more = i + 1 < tile.end;
    const int32_t next = more ? pages[tile.visited.Tile(i + 1)] : kZeroPage;
    const bool sees =
        SeesAny(first_key, kKeys, position, position + kWarpRows - 1, tile.window, tile.sinks);
    ptx::WaitForCopies<0>();
    __syncthreads();  // K is there; V of the tile before is free
    CopyRows<kDim, kKeys, kThreads>(v, 0, rows(page, 1), threadIdx.x);
    ptx::CommitCopies();
    ScoreTile s;
    ProbabilityTile probabilities;
    if (sees) {
      Scores<kDim>(s, q, k, warp * kWarpRows, 0, lane);
      Mask(s, first_key, position, tile.window, tile.sinks, lane);
      Softmax<kDim>(state, s, probabilities, p.scale_log2);
      Scores<kDim>(s, q, k, warp * kWarpRows, kHalfKeys, lane);
    }
    ptx::WaitForCopies<0>();
    __syncthreads();  // V is there; K is free
    page = next;
    if (more) CopyRows<kDim, kKeys, kThreads>(k, 0, rows(page, 0), threadIdx.x);
    ptx::CommitCopies();
    if (!sees) continue;
    Values<kDim>(state, probabilities, v, 0, lane);
    Mask(s, first_key + kHalfKeys, position, tile.window, tile.sinks, lane);
    Softmax<kDim>(state, s, probabilities, p.scale_log2);
    Values<kDim>(state, probabilities, v, kHalfKeys, lane);
  }
#pragma unroll
  for (int b = 0; b < kRowBlocks; ++b)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      state.l[b][h] += __shfl_xor_sync(~0u, state.l[b][h], 1);
      state.l[b][h] += __shfl_xor_sync(~0u, state.l[b][h], 2);
    }
}

// A part's result as the thread holds it, in a fixed order: f(value, index).
template <int kDim, class F>
__device__ __forceinline__ void ForEachFloat(RowState<kDim>& state, F&& f) {
  int at = 0;
#pragma unroll
  for (int b = 0; b < kRowBlocks; ++b) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      f(state.m[b][h], at++);
      f(state.l[b][h], at++);
    }
#pragma unroll
    for (int j = 0; j < kDim / 8; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) f(state.o[b][j][e], at++);
  }
}

// Adds a part's result to state.
template <int kDim>
__device__ __forceinline__ void AddPart(RowState<kDim>& state, const float* part, float c) {
  int at = 0;
#pragma unroll
  for (int b = 0; b < kRowBlocks; ++b) {
    float f[2], g[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float m = __ldcg(part + kThreads * at++), l = __ldcg(part + kThreads * at++);
      const float top = fmaxf(state.m[b][h], m), base = top == -INFINITY ? 0.f : top;
      f[h] = ptx::Exp2((state.m[b][h] - base) * c);
      g[h] = ptx::Exp2((m - base) * c);
      state.l[b][h] = state.l[b][h] * f[h] + l * g[h];
      state.m[b][h] = top;
    }
#pragma unroll
    for (int j = 0; j < kDim / 8; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float x = __ldcg(part + kThreads * at++);
        state.o[b][j][e] = state.o[b][j][e] * f[e >> 1] + x * g[e >> 1];
      }
  }
}

// Leaves a part's result, or merges those of all parts when this block is the last of them to
// arrive. Returns whether the output is to be written.
template <int kDim>
__device__ __forceinline__ bool Merge(const PrefillParams& p, const QueryTile& tile, int head,
                                      Shared<kDim>& sm, RowState<kDim>& state) {
  auto result = [&](int part) {
    return p.partials +
           static_cast<int64_t>(tile.first_result + head * tile.parts + part) *
               (kThreadFloats<kDim> * kThreads) +
           threadIdx.x;
  };
  float* mine = result(tile.part);
  ForEachFloat<kDim>(state, [&](float& x, int at) { __stcg(mine + at * kThreads, x); });
  __syncthreads();
  if (threadIdx.x == 0) {
    const uint32_t last = tile.parts - 1;
    sm.is_last = ptx::CountArrival(p.arrivals + tile.split * p.heads + head, last) == last;
  }
  __syncthreads();
  if (!sm.is_last) return false;
  // All from memory, in order: the sum does not depend on who came last.
  state.Clear();
  for (int part = 0; part < tile.parts; ++part) AddPart<kDim>(state, result(part), p.scale_log2);
  return true;
}

// Through the warp's own rows of q in shared memory, 16 bytes a lane.
template <int kDim>
__device__ __forceinline__ void Store(const PrefillParams& p, const QueryTile& tile, int head,
                                      Shared<kDim>& sm, const RowState<kDim>& state) {
  using Layout = PortableLayout<kDim>;
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  __syncwarp();
#pragma unroll
  for (int b = 0; b < kRowBlocks; ++b)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float inverse = 1.f / state.l[b][h];
      const int row = warp * kWarpRows + 16 * b + 8 * h + (lane >> 2);
#pragma unroll
      for (int j = 0; j < kDim / 8; ++j)
        *reinterpret_cast<uint32_t*>(sm.q + Layout::Offset(row, j) + 4 * (lane & 3)) =
            ptx::PackBf16(state.o[b][j][2 * h] * inverse, state.o[b][j][2 * h + 1] * inverse);
    }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < kWarpRows * Layout::kChunks / 32; ++i) {
    const int at = 32 * i + lane, row = warp * kWarpRows + at / Layout::kChunks,
              chunk = at % Layout::kChunks;
    if (row < tile.first || row > tile.last) continue;
    Bf16* to = p.out + (static_cast<int64_t>(tile.out_row + row) * p.heads + head) * kDim;
    *reinterpret_cast<uint4*>(to + chunk * 8) =
        *reinterpret_cast<const uint4*>(sm.q + Layout::Offset(row, chunk));
  }
}

template <int kDim>
__global__ void __launch_bounds__(kThreads, 2) PortablePrefill(const PrefillParams p) {
  extern __shared__ __align__(1024) uint8_t memory[];
  auto& sm = *reinterpret_cast<Shared<kDim>*>(memory);
  ptx::LaunchDependents();
  const int entry = blockIdx.x / p.heads, head = blockIdx.x - entry * p.heads;
  constexpr int kWords = sizeof(QueryTile) / 4;
  if (threadIdx.x < kWords)
    reinterpret_cast<int32_t*>(&sm.tile)[threadIdx.x] =
        reinterpret_cast<const int32_t*>(p.tiles + entry)[threadIdx.x];
  __syncthreads();
  const QueryTile& tile = sm.tile;
  RowState<kDim> state;
  VisitKeys<kDim>(p, tile, head, sm, state);
  if (tile.parts > 1 && !Merge<kDim>(p, tile, head, sm, state)) return;
  Store<kDim>(p, tile, head, sm, state);
}

// Calls f with the head dimension as a constant.
template <class F>
auto ByHeadDim(int32_t head_dim, F&& f) {
  switch (head_dim) {
    case 64:
      return f(std::integral_constant<int, 64>());
    case 96:
      return f(std::integral_constant<int, 96>());
    default:
      SWAA_CHECK_EQ(head_dim, 128);
      return f(std::integral_constant<int, 128>());
  }
}

}  // namespace

PrefillGeometry PortablePrefillGeometry(int32_t head_dim) {
  return {.query_rows = kQueryRows,
          .key_rows = kKeys,
          .result_floats = kThreads * (kRowBlocks * head_dim / 2 + 4 * kRowBlocks),
          .arrival_counts = 1};
}

absl::Status PreparePortablePrefill(int32_t head_dim) {
  return ByHeadDim(head_dim, []<int kDim>(std::integral_constant<int, kDim>) {
    return AllowSharedBytes(PortablePrefill<kDim>, sizeof(Shared<kDim>), "portable prefill kernel");
  });
}

void LaunchPortablePrefill(int32_t head_dim, const PrefillParams& params,
                           const LaunchOptions& options) {
  ByHeadDim(head_dim, [&]<int kDim>(std::integral_constant<int, kDim>) {
    LaunchAttentionKernel(PortablePrefill<kDim>, params.item_count, kThreads, sizeof(Shared<kDim>),
                          options, params);
  });
}

}  // namespace swaa::kernels::cuda
