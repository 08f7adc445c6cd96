// The cut of a row too flat for one bin of the histogram: a radix search over the keys of all its
// tokens, eight bits a pass, by one block. Slow and rare.

#ifndef SWAA_KERNELS_CUDA_SAMPLING_RADIX_CUT_CUH_
#define SWAA_KERNELS_CUDA_SAMPLING_RADIX_CUT_CUH_

#include "kernels/cuda/sampling/block_reduce.cuh"
#include "kernels/cuda/sampling/row.cuh"

namespace swaa::kernels::cuda {

// Where the falling order reaches what is looked for: a key, and how many of the tokens that have
// it are needed.
struct KeyCut {
  uint32_t key;
  uint32_t needed;
  uint32_t ties;      // tokens of this key
  double above_mass;  // of the keys above it
  double tie_weight;  // of one token of this key
};

// The key at which `reached(count, mass)` first holds of all tokens down to it, in whole keys.
template <typename Reached>
__device__ __forceinline__ KeyCut FindKey(const Row& row, int32_t tiles, float largest,
                                          const Reached& reached) {
  __shared__ uint32_t counts[256];
  __shared__ unsigned long long masses[256];
  __shared__ uint32_t digit, above_count, ties;
  __shared__ unsigned long long above_mass;
  uint32_t prefix = 0;
  if (threadIdx.x == 0) above_count = 0;
  if (threadIdx.x == 0) above_mass = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    counts[threadIdx.x] = 0;
    masses[threadIdx.x] = 0;
    __syncthreads();
    for (int32_t tile = 0; tile < tiles; ++tile) {
      float logits[4 * kGroups];
      LoadTile(row, tile, logits);
      for (int i = 0; i < 4 * kGroups; ++i) {
        if (logits[i] == NoLogit()) continue;
        const uint32_t key = KeyOf(logits[i]);
        if (shift < 24 && key >> (shift + 8) != prefix >> (shift + 8)) continue;
        const uint32_t at = key >> shift & 255u;
        atomicAdd(&counts[at], 1u);
        const double scaled = ScaledLogit(logits[i], largest, row.slot->inverse_temperature);
        if (scaled <= kWeightless) continue;
        atomicAdd(&masses[at], static_cast<unsigned long long>(FixedPointWeight(scaled)));
      }
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int at = 255;
      for (; at > 0; --at) {
        if (reached(above_count + counts[at], static_cast<double>(above_mass + masses[at]))) break;
        above_count += counts[at];
        above_mass += masses[at];
      }
      digit = at;
      ties = counts[at];
    }
    __syncthreads();
    prefix |= digit << shift;
  }
  KeyCut cut{.key = prefix, .ties = ties, .above_mass = static_cast<double>(above_mass)};
  cut.tie_weight =
      FixedPointWeight(ScaledLogit(LogitOf(prefix), largest, row.slot->inverse_temperature));
  uint32_t low = 1, high = max(ties, 1u);
  while (low < high) {
    const uint32_t middle = (low + high) / 2;
    if (reached(above_count + middle, cut.above_mass + middle * cut.tie_weight)) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  cut.needed = low;
  __syncthreads();
  return cut;
}

// The id of the `needed`-th token, by rising id, that has the key.
__device__ __forceinline__ int32_t FindTie(const Row& row, int32_t tiles, uint32_t key,
                                           uint32_t needed) {
  __shared__ int32_t found;
  if (threadIdx.x == 0) found = kNoToken;
  uint32_t before = 0;  // in tiles and groups before; the same in all threads
  for (int32_t tile = 0; tile < tiles; ++tile) {
    for (int group = 0; group < kGroups; ++group) {
      float logits[4];
      const int32_t first = GroupFirst(tile, group);
      Adjust(row, first, LoadFour(row.logits, first, row.vocab), logits);
      uint32_t mine = 0;
      for (int i = 0; i < 4; ++i) mine += logits[i] != NoLogit() && KeyOf(logits[i]) == key;
      uint32_t all;
      uint32_t rank = before + BlockSumBefore(mine, &all);
      before += all;
      for (int i = 0; i < 4; ++i) {
        if (logits[i] == NoLogit() || KeyOf(logits[i]) != key) continue;
        if (++rank == needed) found = first + i;
      }
      if (before >= needed) break;
    }
    if (before >= needed) break;
  }
  __syncthreads();
  return found;
}

// Writes the row's cut: the first `wanted` tokens, and of those what top-p keeps. Called by the
// whole block.
__device__ __forceinline__ void RadixCut(const Row& row, int32_t tiles, uint32_t wanted,
                                         RowState* filter) {
  const float max = filter->max;
  const auto by_count = [&](uint32_t count, double) { return count >= wanted; };
  KeyCut cut = FindKey(row, tiles, max, by_count);
  if (row.slot->top_p < 1) {
    const double total = cut.above_mass + cut.needed * cut.tie_weight;
    const double enough = exact::Mul(static_cast<double>(row.slot->top_p), total);
    const auto by_mass = [&](uint32_t, double mass) { return mass >= enough; };
    cut = FindKey(row, tiles, max, by_mass);
  }
  const int32_t token = cut.needed < cut.ties ? FindTie(row, tiles, cut.key, cut.needed) : kNoToken;
  if (threadIdx.x != 0) return;
  filter->cut_key = cut.key;
  filter->cut_token = token;
}

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_SAMPLING_RADIX_CUT_CUH_
