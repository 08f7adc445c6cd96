// Decode attention for any GPU since Ampere: four warps, each of which loads its own 16 keys of
// every tile by cp.async into a ring of its own and multiplies them, so that warps meet only at the
// end of a (sequence, KV head). Grid, plan and merge are those of the kernel for Hopper.

#include <type_traits>

#include "base/check.h"
#include "kernels/cuda/attention/decode_merge.cuh"
#include "kernels/cuda/attention/decode_params.h"
#include "kernels/cuda/attention/decode_tile.cuh"
#include "kernels/cuda/attention/launch.cuh"
#include "kernels/cuda/attention/portable_layout.cuh"
#include "kernels/cuda/cuda_check.h"

namespace swaa::kernels::cuda {
namespace {

// kDeep: more tiles in flight, where a block may have the shared memory for it.
template <int kDim_, int kRows_, bool kDeep>
struct Config {
  static constexpr int kDim = kDim_, kRows = kRows_;
  static constexpr int kStages = kDim == 64 ? (kDeep ? 6 : 4) : (kDeep ? 3 : 2);
  static constexpr int kTileBytes = kPageTokens * PortableLayout<kDim>::kRowBytes;  // K or V
};

template <class T>
struct Shared {
  uint8_t k[T::kStages][T::kTileBytes];
  uint8_t v[T::kStages][T::kTileBytes];
  DecodeMergeMemory<T::kDim, T::kRows> merge;
};

// One warp's loads, ahead of its products and over the ends of items.
template <class T>
class TileFetcher {
 public:
  __device__ TileFetcher(const DecodeParams& p, const DecodePlan& plan, Shared<T>& sm,
                         const DecodePiece& piece, const DecodeCursor& cursor, int warp, int lane)
      : p_(p), plan_(plan), sm_(sm), cursor_(cursor), left_(piece.tiles), warp_(warp), lane_(lane) {
    FetchPageIds();
  }

  // Issues the next tile, if there is one, and commits.
  __device__ __forceinline__ void Issue() {
    if (left_ > 0) {
      if (used_ == 32) FetchPageIds();
      const int64_t page = __shfl_sync(~0u, page_ids_, used_++);
      constexpr int kHeadElements = kPageTokens * T::kDim;
      const Bf16* k =
          p_.pool + (page * 2 * p_.kv_heads + cursor_.head) * kHeadElements + warp_ * 16 * T::kDim;
      const Bf16* v = k + static_cast<int64_t>(p_.kv_heads) * kHeadElements;
      CopyRows<T::kDim, 16, 32>(ptx::SharedAddress(sm_.k[stage_]), warp_ * 16, k, lane_);
      CopyRows<T::kDim, 16, 32>(ptx::SharedAddress(sm_.v[stage_]), warp_ * 16, v, lane_);
      --left_;
      if (++cursor_.tile == cursor_.record.tiles && left_ > 0) {
        cursor_.Next(plan_, p_.kv_heads);
        used_ = 32;
      }
    }
    if (++stage_ == T::kStages) stage_ = 0;
    ptx::CommitCopies();
  }

 private:
  // Of up to 32 tiles of the item, one a lane.
  __device__ __forceinline__ void FetchPageIds() {
    const int32_t* pages = p_.table + cursor_.record.slot * p_.slot_stride;
    const int tile = cursor_.tile + lane_;
    if (tile < cursor_.record.tiles) page_ids_ = __ldcg(pages + cursor_.record.visited.Tile(tile));
    used_ = 0;
  }

  const DecodeParams& p_;
  const DecodePlan& plan_;
  Shared<T>& sm_;
  DecodeCursor cursor_;
  int left_, warp_, lane_;
  int page_ids_ = kZeroPage, used_ = 0, stage_ = 0;
};

template <class T>
__global__ void __launch_bounds__(kDecodeThreads, 1) PortableDecode(const DecodeParams p) {
  extern __shared__ __align__(1024) uint8_t memory[];
  auto& sm = *reinterpret_cast<Shared<T>*>(memory);
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const DecodePlan& plan = PlanOfLayer(p);
  const DecodeBlock start = LoadPlanned(&plan.blocks[blockIdx.x]);
  const DecodePiece piece = {start.tiles, start.total, start.blocks};
  ptx::LaunchDependents();
  if (piece.tiles == 0) {
    ptx::WaitForPredecessor();
    return;
  }
  DecodeCursor cursor(start);
  TileFetcher<T> fetcher(p, plan, sm, piece, cursor, warp, lane);
  ptx::WaitForPredecessor();
  for (int i = 0; i < T::kStages - 1; ++i) fetcher.Issue();
  int stage = 0;
  for (int left = piece.tiles; left > 0;) {
    const int count = min(cursor.record.tiles - cursor.tile, left);
    DecodeState<T::kDim, T::kRows> state;
    state.Begin(p, cursor.record.row, cursor.head, lane);
    for (int i = 0; i < count; ++i) {
      ptx::WaitForCopies<T::kStages - 2>();
      __syncwarp();  // all lanes' copies are there, and all have read the stage that is filled next
      fetcher.Issue();
      DecodeTile<T::kDim, T::kRows, PortableLayout<T::kDim>>(
          state, cursor.record, cursor.record.visited.Tile(cursor.tile + i),
          ptx::SharedAddress(sm.k[stage]), ptx::SharedAddress(sm.v[stage]), warp, lane,
          p.scale_log2);
      if (++stage == T::kStages) stage = 0;
    }
    FinishItem<T::kDim, T::kRows>(p, piece, cursor, count, state, sm.merge, warp, lane);
    left -= count;
    if (left > 0) cursor.Next(plan, p.kv_heads);
    ptx::NamedSync<kDecodeThreads>(kDecodeBarrier);
  }
  ptx::WaitForCopies<0>();
}

// Calls f with the configuration of a head dimension, group and device.
template <class F>
auto ByShape(int32_t head_dim, int32_t group, bool deep, F&& f) {
  SWAA_CHECK_LE(group, kMaxGroup);
  const auto by_rest = [&]<int kDim>(std::integral_constant<int, kDim>) {
    if (group <= 8) return deep ? f(Config<kDim, 8, true>()) : f(Config<kDim, 8, false>());
    return deep ? f(Config<kDim, 16, true>()) : f(Config<kDim, 16, false>());
  };
  switch (head_dim) {
    case 64:
      return by_rest(std::integral_constant<int, 64>());
    case 96:
      return by_rest(std::integral_constant<int, 96>());
    default:
      SWAA_CHECK_EQ(head_dim, 128);
      return by_rest(std::integral_constant<int, 128>());
  }
}

}  // namespace

absl::Status PreparePortableDecode(int32_t head_dim, int32_t group, bool deep) {
  return ByShape(head_dim, group, deep, []<class T>(T) {
    return AllowSharedBytes(PortableDecode<T>, sizeof(Shared<T>), "portable decode kernel");
  });
}

void LaunchPortableDecode(int32_t head_dim, bool deep, const DecodeParams& params,
                          const LaunchOptions& options) {
  ByShape(head_dim, params.group, deep, [&]<class T>(T) {
    LaunchAttentionKernel(PortableDecode<T>, options.blocks, kDecodeThreads, sizeof(Shared<T>),
                          options, params);
  });
}

}  // namespace swaa::kernels::cuda
