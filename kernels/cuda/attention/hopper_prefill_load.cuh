// Prefill attention for Hopper: the two threads that feed the consumers.

#ifndef SWAA_KERNELS_CUDA_ATTENTION_HOPPER_PREFILL_LOAD_CUH_
#define SWAA_KERNELS_CUDA_ATTENTION_HOPPER_PREFILL_LOAD_CUH_

#include "kernels/cuda/attention/hopper_prefill.cuh"

namespace swaa::kernels::cuda::hopper {

template <class T>
__device__ __forceinline__ void LoadQueries(Shared<T>& sm, int slot, const Output& output,
                                            const CUtensorMap* q_map) {
  const uint32_t bar = ptx::SharedAddress(&sm.q_full[slot]), to = ptx::SharedAddress(sm.q[slot]);
  ptx::ArriveAndExpect(bar, T::kQueryBytes);
  if constexpr (T::kHeadDim % 64 == 0) {
    ptx::CopyBox(to, *q_map, 0, output.out_row, output.head * T::kColumnBlocks, bar,
                 ptx::kEvictFirst);
  } else {
#pragma unroll
    for (int block = 0; block < T::kColumnBlocks; ++block) {
      ptx::CopyBox(to + block * T::kQueryBlockBytes, *q_map, 64 * block, output.out_row,
                   output.head, bar, ptx::kEvictFirst);
    }
  }
}

// One thread: draws work items, one ahead of the key loader, and loads their queries. In the key
// loader's own thread the chain of dependent loads (counter, tile, page table) would stand between
// two items. The first item needs no counter, which a kernel before may still be using: only what
// the step's plan holds is read before that kernel has ended.
template <class T>
__device__ void DrawItems(const PrefillParams& p, Shared<T>& sm, const CUtensorMap* q_map) {
  ptx::PrefetchMap(*q_map);
  const int blocks = gridDim.x;
  int index = blockIdx.x;
  for (int round = 0;; ++round) {
    const int slot = round & 1;
    const uint32_t q_empty = ptx::SharedAddress(&sm.q_empty[slot]), parity = ((round >> 1) & 1) ^ 1;
    if (index >= p.item_count) {
      ptx::WaitForPhase(q_empty, parity);
      sm.items[slot].walk.count = 0;
      ptx::Arrive(ptx::SharedAddress(&sm.item_full[slot]));
      ptx::Arrive(ptx::SharedAddress(&sm.q_full[slot]));
      // Draws are item_count in all: each block's first item was not drawn, its last draw is void.
      if (index == p.item_count + blocks - 1) *p.counter = 0;
      return;
    }
    const Item item = MakeItem<T>(p, index);
    ptx::WaitForPhase(q_empty, parity);
    sm.items[slot] = item;
    ptx::Arrive(ptx::SharedAddress(&sm.item_full[slot]));
    if (round == 0) ptx::WaitForPredecessor();
    LoadQueries<T>(sm, slot, item.output, q_map);
    index = blocks + atomicAdd(p.counter, 1);
  }
}

// One thread: loads K and V, in two rings. V of a tile is issued after K of the next, so that
// neither waits for the other.
template <class T>
struct KeyLoader {
  Shared<T>& sm;
  const CUtensorMap* block_map;
  const CUtensorMap* page_map;
  int k_stage = 0, k_parity = 1, v_stage = 0, v_parity = 1;

  // 64 columns of a page: number `block` of the head's.
  __device__ __forceinline__ void LoadBlock(uint32_t to, int block, int page, uint32_t bar) {
    if constexpr (T::kHeadDim % 64 == 0) {
      ptx::CopyBox(to, *block_map, 0, 0, block, page, bar, ptx::kEvictLast);
    } else {
      ptx::CopyBox(to, *block_map, 64 * block, 0, 0, page, bar, ptx::kEvictLast);
    }
  }
  // K lies as column blocks of 128 positions.
  __device__ __forceinline__ void IssueK(int2 page) {
    const uint32_t bar = ptx::SharedAddress(&sm.k_full[k_stage]),
                   to = ptx::SharedAddress(sm.k[k_stage]);
    ptx::WaitForPhase(ptx::SharedAddress(&sm.k_empty[k_stage]), k_parity);
    ptx::ArriveAndExpect(bar, T::kTileBytes);
#pragma unroll
    for (int block = 0; block < T::kColumnBlocks; ++block) {
      const uint32_t at = to + block * T::kKeyBlockBytes;
      LoadBlock(at, block, page.x, bar);
      LoadBlock(at + kPageBlockBytes, block, page.y, bar);
    }
    if (++k_stage == T::kStages) k_stage = 0, k_parity ^= 1;
  }
  // V lies page by page, each as column blocks.
  __device__ __forceinline__ void IssueV(int2 page) {
    const uint32_t bar = ptx::SharedAddress(&sm.v_full[v_stage]),
                   to = ptx::SharedAddress(sm.v[v_stage]);
    ptx::WaitForPhase(ptx::SharedAddress(&sm.v_empty[v_stage]), v_parity);
    ptx::ArriveAndExpect(bar, T::kTileBytes);
    constexpr int kPage = T::kColumnBlocks * kPageBlockBytes;
    if constexpr (T::kHeadDim % 64 == 0) {
      ptx::CopyBox(to, *page_map, 0, 0, 0, page.x, bar, ptx::kEvictLast);
      ptx::CopyBox(to + kPage, *page_map, 0, 0, 0, page.y, bar, ptx::kEvictLast);
    } else {
#pragma unroll
      for (int block = 0; block < T::kColumnBlocks; ++block) {
        LoadBlock(to + block * kPageBlockBytes, block, page.x, bar);
        LoadBlock(to + kPage + block * kPageBlockBytes, block, page.y, bar);
      }
    }
    if (++v_stage == T::kStages) v_stage = 0, v_parity ^= 1;
  }
};

template <class T>
__device__ void LoadKeys(const PrefillParams& p, Shared<T>& sm, const CUtensorMap* block_map,
                         const CUtensorMap* page_map) {
  ptx::PrefetchMap(*block_map);
  if (T::kHeadDim % 64 == 0) ptx::PrefetchMap(*page_map);
  KeyLoader<T> loader{sm, block_map, page_map};
  int2 held = {0, 0};  // the tile whose V is still to be issued
  bool holding = false;
  for (int round = 0;; ++round) {
    const int slot = round & 1;
    ptx::WaitForPhase(ptx::SharedAddress(&sm.item_full[slot]), (round >> 1) & 1);
    const Item item = sm.items[slot];
    ptx::Arrive(ptx::SharedAddress(&sm.q_empty[slot]));
    if (item.walk.count == 0) break;
    if (round == 0) ptx::WaitForPredecessor();
    const int kv_head = item.output.head / p.group;
    int2 next = item.pages;
    for (int i = 0; i < item.walk.count; ++i) {
      const int2 page =
          make_int2(next.x * 2 * p.kv_heads + kv_head, next.y * 2 * p.kv_heads + kv_head);
      if (i + 1 < item.walk.count) next = PagePair(p, item.slot, item.walk.Tile(i + 1));
      loader.IssueK(page);
      if (holding) loader.IssueV(held);
      held = make_int2(page.x + p.kv_heads, page.y + p.kv_heads);
      holding = true;
    }
  }
  if (holding) loader.IssueV(held);
}

}  // namespace swaa::kernels::cuda::hopper

#endif  // SWAA_KERNELS_CUDA_ATTENTION_HOPPER_PREFILL_LOAD_CUH_
