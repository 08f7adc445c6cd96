// Decode attention for Hopper: a warp that fetches page ids and loads pages by TMA, and four warps
// of mma.sync with the query heads of a KV head as rows. A persistent grid over the line that
// decode_plan.cu has cut.

#include <algorithm>
#include <bit>
#include <type_traits>

#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/cuda/attention/decode_merge.cuh"
#include "kernels/cuda/attention/decode_params.h"
#include "kernels/cuda/attention/decode_rope.cuh"
#include "kernels/cuda/attention/decode_tile.cuh"
#include "kernels/cuda/attention/launch.cuh"
#include "kernels/cuda/hopper_ptx.cuh"

namespace swaa::kernels::cuda {
namespace {

constexpr int kThreads = kDecodeThreads + 32;
// Blocks shall be resident beside those of the products before and after. A multiprocessor has its
// registers in quarters of 16384, and a warp in one of them: two of the five warps share one, and
// two of a product's five, at up to 64 registers a thread, must fit there as well.
constexpr int kMaxRegisters = 192;
constexpr int kBlockBytes = 64 * 128;  // 64 keys of 64 columns

// As TMA writes it: blocks of 64 columns in the 128-byte swizzle.
struct SwizzledBlocks {
  __device__ static __forceinline__ uint32_t Offset(int row, int chunk) {
    return (chunk >> 3) * kBlockBytes + row * 128 + (((chunk & 7) ^ (row & 7)) << 4);
  }
};

template <int kDim_, int kRows_>
struct Config {
  static constexpr int kDim = kDim_, kRows = kRows_;
  static constexpr int kColumnBlocks = (kDim + 63) / 64;
  static constexpr int kTileBytes = kColumnBlocks * kBlockBytes;  // K or V
  // About 96 KB of keys and values in flight: more let early blocks run ahead while others wait.
  static constexpr int kStages = kDim == 64 ? 6 : kDim == 96 ? 4 : 3;
};

// More than half of a multiprocessor's: were two blocks on one, another would have none. Beside it
// a product's block has room.
constexpr int kMinSharedBytes = 114 * 1024;

template <class T>
struct Shared {
  uint8_t k[T::kStages][T::kTileBytes];
  uint8_t v[T::kStages][T::kTileBytes];
  DecodeMergeMemory<T::kDim, T::kRows> merge;
  uint64_t full[T::kStages], empty[T::kStages];
};

template <class T>
constexpr int kSharedBytes = std::max<int>(sizeof(Shared<T>), kMinSharedBytes);

// Loads K or V of one page and head: `at` counts [page, K or V, KV head].
template <class T>
__device__ __forceinline__ void LoadTile(uint8_t* to, const CUtensorMap* map, int at,
                                         uint32_t bar) {
  if constexpr (T::kDim % 64 == 0) {
    ptx::CopyBox(ptx::SharedAddress(to), *map, 0, 0, 0, at, bar, ptx::kEvictFirst);
  } else {
#pragma unroll
    for (int block = 0; block < T::kColumnBlocks; ++block)
      ptx::CopyBox(ptx::SharedAddress(to) + block * kBlockBytes, *map, 64 * block, 0, 0, at, bar,
                   ptx::kEvictFirst);
  }
}

// The loading warp: all lanes fetch page ids, lane 0 issues. The first ids are on their way before
// the kernel before has ended. With a DecodeRope so are the pages: what they hold was there before
// this step, but for the rows' own keys.
template <class T>
__device__ __forceinline__ void LoadPages(const DecodeParams& p, const DecodePlan& plan,
                                          Shared<T>& sm, const DecodePiece& piece,
                                          DecodeCursor cursor, const CUtensorMap* map, int lane) {
  int stage = 0, parity = 1;
  bool waited = p.rope.cos_sin != nullptr;
  for (int left = piece.tiles; left > 0;) {
    const int count = min(cursor.record.tiles - cursor.tile, left);
    const int32_t* pages = p.table + cursor.record.slot * p.slot_stride;
    for (int i0 = 0; i0 < count; i0 += 32) {
      const int n = min(32, count - i0);
      int mine = 0;
      if (lane < n) mine = __ldcg(pages + cursor.record.visited.Tile(cursor.tile + i0 + lane));
      if (!waited) ptx::WaitForPredecessor();
      waited = true;
      for (int i = 0; i < n; ++i) {
        const int page = __shfl_sync(~0u, mine, i);
        if (lane == 0) {
          const uint32_t bar = ptx::SharedAddress(&sm.full[stage]);
          ptx::WaitForPhase(ptx::SharedAddress(&sm.empty[stage]), parity);
          ptx::ArriveAndExpect(bar, 2 * T::kTileBytes);
          const int key_at = page * 2 * p.kv_heads + cursor.head;
          LoadTile<T>(sm.k[stage], map, key_at, bar);
          LoadTile<T>(sm.v[stage], map, key_at + p.kv_heads, bar);
        }
        if (++stage == T::kStages) stage = 0, parity ^= 1;
      }
    }
    left -= count;
    if (left > 0) cursor.Next(plan, p.kv_heads);
  }
}

template <class T>
__device__ __forceinline__ void Multiply(const DecodeParams& p, const DecodePlan& plan,
                                         Shared<T>& sm, const DecodePiece& piece,
                                         DecodeCursor cursor, int warp, int lane) {
  int stage = 0, parity = 0;
  for (int left = piece.tiles; left > 0;) {
    const int count = min(cursor.record.tiles - cursor.tile, left);
    const DecodeRecord& record = cursor.record;
    // Visit 0 is of the tile of the row's own key.
    const bool has_own_key =
        p.rope.cos_sin != nullptr && cursor.tile == 0 && record.position % kPageTokens / 16 == warp;
    OwnKey<T::kDim> own;
    if (has_own_key) own.Load(p, record.row, cursor.head, lane);
    DecodeState<T::kDim, T::kRows> state;
    state.Begin(p, record.row, cursor.head, lane);
    if (p.rope.cos_sin != nullptr) RotateQueries(p.rope, record.row, lane, state);
    if (has_own_key) {
      own.Rotate(p.rope);
      ptx::WaitForPhase(ptx::SharedAddress(&sm.full[stage]), parity);
      own.template Store<SwizzledBlocks>(p, record, cursor.head, ptx::SharedAddress(sm.k[stage]),
                                         ptx::SharedAddress(sm.v[stage]), lane);
      ptx::FenceSharedForCopies();
    }
    for (int i = 0; i < count; ++i) {
      const int n = record.visited.Tile(cursor.tile + i);
      ptx::WaitForPhase(ptx::SharedAddress(&sm.full[stage]), parity);
      DecodeTile<T::kDim, T::kRows, SwizzledBlocks>(
          state, record, n, ptx::SharedAddress(sm.k[stage]), ptx::SharedAddress(sm.v[stage]), warp,
          lane, p.scale_log2);
      __syncwarp();
      if (lane == 0) ptx::Arrive(ptx::SharedAddress(&sm.empty[stage]));
      if (++stage == T::kStages) stage = 0, parity ^= 1;
    }
    FinishItem<T::kDim, T::kRows>(p, piece, cursor, count, state, sm.merge, warp, lane);
    left -= count;
    if (left > 0) cursor.Next(plan, p.kv_heads);
    ptx::NamedSync<kDecodeThreads>(kDecodeBarrier);
  }
}

template <class T>
__global__ void __maxnreg__(kMaxRegisters)
    HopperDecode(const DecodeParams p, const __grid_constant__ CUtensorMap map) {
  extern __shared__ __align__(1024) uint8_t memory[];
  auto& sm = *reinterpret_cast<Shared<T>*>(memory);
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  if (threadIdx.x == 0) {
    ptx::PrefetchMap(map);
    for (int i = 0; i < T::kStages; ++i) {
      ptx::InitBarrier(ptx::SharedAddress(&sm.full[i]), 1);
      ptx::InitBarrier(ptx::SharedAddress(&sm.empty[i]), kDecodeWarps);
    }
    ptx::FenceBarrierInit();
  }
  const DecodePlan& plan = PlanOfLayer(p);
  const DecodeBlock start = LoadPlanned(&plan.blocks[blockIdx.x]);
  const DecodePiece piece = {start.tiles, start.total, start.blocks};
  __syncthreads();
  ptx::LaunchDependents();
  if (piece.tiles == 0) {
    ptx::WaitForPredecessor();
    return;
  }
  if (warp == kDecodeWarps) {
    LoadPages<T>(p, plan, sm, piece, DecodeCursor(start), &map, lane);
  } else {
    ptx::WaitForPredecessor();
    Multiply<T>(p, plan, sm, piece, DecodeCursor(start), warp, lane);
  }
}

// Calls f with the configuration of a head dimension and group.
template <class F>
auto ByShape(int32_t head_dim, int32_t group, F&& f) {
  SWAA_CHECK_LE(group, kMaxGroup);
  const auto by_group = [&]<int kDim>(std::integral_constant<int, kDim>) {
    if (group <= 4) return f(Config<kDim, 4>());
    if (group <= 8) return f(Config<kDim, 8>());
    return f(Config<kDim, 16>());
  };
  switch (head_dim) {
    case 64:
      return by_group(std::integral_constant<int, 64>());
    case 96:
      return by_group(std::integral_constant<int, 96>());
    default:
      SWAA_CHECK_EQ(head_dim, 128);
      return by_group(std::integral_constant<int, 128>());
  }
}

}  // namespace

absl::Status PrepareHopperDecode(int32_t head_dim, int32_t group) {
  return ByShape(head_dim, group, []<class T>(T) -> absl::Status {
    SWAA_RETURN_IF_ERROR(
        AllowSharedBytes(HopperDecode<T>, kSharedBytes<T>, "decode kernel for Hopper"));
    // As with registers: a multiprocessor divides its memory between shared memory and L1 anew only
    // when it is idle.
    return CudaStatus(cudaFuncSetAttribute(reinterpret_cast<const void*>(HopperDecode<T>),
                                           cudaFuncAttributePreferredSharedMemoryCarveout,
                                           cudaSharedmemCarveoutMaxShared),
                      "shared memory of the decode kernel for Hopper");
  });
}

void LaunchHopperDecode(int32_t head_dim, const DecodeParams& params, const PoolMaps& pool,
                        const LaunchOptions& options) {
  ByShape(head_dim, params.group, [&]<class T>(T) {
    LaunchAttentionKernel(HopperDecode<T>, options.blocks, kThreads, kSharedBytes<T>, options,
                          params, std::bit_cast<CUtensorMap>(pool.page));
  });
}

}  // namespace swaa::kernels::cuda
