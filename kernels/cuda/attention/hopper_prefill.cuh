// Prefill attention for Hopper (sm_90a): what the kernel's roles share. A block is one thread that
// draws work items and loads queries, one that loads keys and values, and two or three consumer
// warpgroups of 64 query rows. Persistent: a block works on items until none is left.

#ifndef SWAA_KERNELS_CUDA_ATTENTION_HOPPER_PREFILL_CUH_
#define SWAA_KERNELS_CUDA_ATTENTION_HOPPER_PREFILL_CUH_

#include <cstdint>

#include "kernels/cuda/attention/prefill_params.h"
#include "kernels/cuda/attention/visited_tiles.h"
#include "kernels/cuda/hopper_ptx.cuh"
#include "kernels/cuda/ptx.cuh"

namespace swaa::kernels::cuda::hopper {

constexpr int kKeys = 128;                    // of a tile: two pages
constexpr int kPageBlockBytes = 64 * 64 * 2;  // 64 positions of 64 columns

// What is fixed when a kernel is compiled. kPingPong: named barriers let one warpgroup multiply
// while another is in its exponentials; it gains where exponentials bind (head_dim 64) and costs
// elsewhere.
template <int kHeadDim_, int kGroups_, bool kPingPong_>
struct Config {
  static constexpr int kHeadDim = kHeadDim_, kGroups = kGroups_;
  static constexpr bool kPingPong = kPingPong_;
  static constexpr int kColumnBlocks = (kHeadDim + 63) / 64;  // of 64 columns in shared memory
  static constexpr int kColumns = 64 * kColumnBlocks;         // those past head_dim are zero
  static constexpr int kRows = 64 * kGroups, kThreads = 128 * (kGroups + 1);
  static constexpr int kStages = kColumns == 64 ? 4 : 2;
  static constexpr int kTileBytes = kKeys * kColumns * 2;  // K or V
  static constexpr int kKeyBlockBytes = kKeys * 64 * 2;    // 64 columns of K
  static constexpr int kQueryBytes = kRows * kColumns * 2, kQueryBlockBytes = kRows * 64 * 2;
  // Less for the loading warpgroup spills in its key loader; more leaves consumers too few.
  static constexpr int kProducerRegisters = kGroups == 3 ? 32 : 40;
  static constexpr int kConsumerRegisters = kGroups == 3 ? 160 : 232;
  // A part's result: o, m and l as the threads of all warpgroups hold them.
  static constexpr int kThreadFloats = kColumns / 2 + 4;
  static constexpr int kResultFloats = kGroups * 128 * kThreadFloats;
};
using Prefill64 = Config<64, 3, true>;
using Prefill96 = Config<96, 2, false>;
using Prefill128 = Config<128, 2, false>;

// Key tiles of a work item and what masks need.
struct Walk {
  int count;         // key tiles; 0: no more work
  int begin;         // of the key tiles that the query tile visits
  int top;           // first key tile (the diagonal)
  int window_tiles;  // tiles top, top - 1, ... ; the rest are sink tiles
  int sink_top;      // first sink tile
  int position;      // absolute position of query row 0
  int window, sinks;
  __device__ int Tile(int i) const {
    i += begin;
    return i < window_tiles ? top - i : sink_top - (i - window_tiles);
  }
};
struct Output {
  int head;
  int out_row;                       // see QueryTile
  int first, last;                   // rows that exist
  int part, parts, result, arrival;  // result: of the first part
};
struct Item {  // from the thread that draws to all others
  Walk walk;
  Output output;
  int slot;
  int2 pages;  // of the first key tile
};

template <class T>
struct Shared {
  uint16_t q[2][T::kRows * T::kColumns];
  uint16_t k[T::kStages][kKeys * T::kColumns];
  uint16_t v[T::kStages][kKeys * T::kColumns];
  uint16_t o[T::kRows * T::kColumns];
  uint64_t item_full[2], q_full[2], q_empty[2];
  uint64_t k_full[T::kStages], k_empty[T::kStages], v_full[T::kStages], v_empty[T::kStages];
  Item items[2];
  int is_last[3];  // a warpgroup's: the last part of its rows to arrive
};

// Pages of key tile n.
__device__ __forceinline__ int2 PagePair(const PrefillParams& p, int slot, int n) {
  const int32_t* pages = p.table + slot * p.slot_stride;
  return make_int2(pages[2 * n], 2 * n + 1 < p.max_pages ? pages[2 * n + 1] : kZeroPage);
}

// Item number `index`: heads of a tile are adjacent, so that those of a KV head share its keys in
// L2.
template <class T>
__device__ Item MakeItem(const PrefillParams& p, int index) {
  const int entry = index / p.heads;
  const QueryTile tile = p.tiles[entry];
  Walk walk;
  walk.count = tile.end - tile.begin;
  walk.begin = tile.begin;
  walk.top = tile.visited.top;
  walk.window_tiles = tile.visited.window_tiles;
  walk.sink_top = tile.visited.sink_tiles - 1;
  walk.position = tile.position;
  walk.window = tile.window;
  walk.sinks = tile.sinks;
  Output output;
  output.head = index - entry * p.heads;
  output.out_row = tile.out_row;
  output.first = tile.first;
  output.last = tile.last;
  output.part = tile.part;
  output.parts = tile.parts;
  output.result = tile.first_result + output.head * tile.parts;
  output.arrival = (tile.split * p.heads + output.head) * T::kGroups;
  return {walk, output, tile.slot, PagePair(p, tile.slot, walk.Tile(0))};
}

}  // namespace swaa::kernels::cuda::hopper

#endif  // SWAA_KERNELS_CUDA_ATTENTION_HOPPER_PREFILL_CUH_
