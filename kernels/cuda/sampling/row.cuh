// A row of logits as a draw sees it, tile by tile, and tokens as ordered codes.

#ifndef SWAA_KERNELS_CUDA_SAMPLING_ROW_CUH_
#define SWAA_KERNELS_CUDA_SAMPLING_ROW_CUH_

#include <cuda_runtime.h>

#include "kernels/cuda/sampling/state.h"

namespace swaa::kernels::cuda {

constexpr int kGroups = kTileTokens / (4 * kTileThreads);  // of four neighbours, a thread
constexpr int32_t kNoToken = 0x7fffffff;

__device__ __forceinline__ float NoLogit() { return -INFINITY; }

// A key that orders as the logit does; equal logits (-0 and 0 too) have equal keys.
__device__ __forceinline__ uint32_t KeyOf(float logit) {
  const uint32_t bits = __float_as_uint(__fadd_rn(logit, 0.0f));
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ float LogitOf(uint32_t key) {
  return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

// Falling codes are falling logits, equal ones by rising id. 0 is none.
__device__ __forceinline__ uint64_t CodeOf(float logit, int32_t token) {
  return (uint64_t{KeyOf(logit)} << 32) | static_cast<uint32_t>(~token);
}
__device__ __forceinline__ uint32_t KeyOfCode(uint64_t code) {
  return static_cast<uint32_t>(code >> 32);
}
__device__ __forceinline__ int32_t TokenOfCode(uint64_t code) {
  return static_cast<int32_t>(~static_cast<uint32_t>(code));
}

// The row of a draw. Null where nothing of the kind applies.
struct Row {
  const float* logits;
  const SlotState* slot;
  const uint32_t* history;
  const uint32_t* biased;
  const uint32_t* forbidden;
  const int32_t* bias_tokens;
  const float* bias_values;
  int32_t vocab;
};

__device__ __forceinline__ Row MakeRow(const SamplerState& state, const float* logits, int32_t row,
                                       int32_t slot, bool forbid) {
  const SlotState* settings = state.slots + slot;
  const int64_t bitmap = int64_t{slot} * state.words;
  return {.logits = logits + int64_t{row} * state.vocab,
          .slot = settings,
          .history = settings->has_history ? *state.history + int64_t{slot} * state.vocab : nullptr,
          .biased = settings->bias_count > 0 ? state.biased + bitmap : nullptr,
          .forbidden = forbid ? state.forbidden + bitmap : nullptr,
          .bias_tokens = state.bias_tokens + int64_t{slot} * kMaxLogitBiases,
          .bias_values = state.bias_values + int64_t{slot} * kMaxLogitBiases,
          .vocab = state.vocab};
}

// Four logits from `first`, a multiple of 4, as they are; NoLogit beyond the vocabulary.
__device__ __forceinline__ float4 LoadFour(const float* logits, int32_t first, int32_t vocab) {
  if (vocab % 4 == 0) {
    if (first >= vocab) return {NoLogit(), NoLogit(), NoLogit(), NoLogit()};
    return *reinterpret_cast<const float4*>(logits + first);
  }
  const auto one = [&](int32_t token) { return token < vocab ? logits[token] : NoLogit(); };
  return {one(first), one(first + 1), one(first + 2), one(first + 3)};
}

// Of a token whose bit in `biased` is set.
__device__ __forceinline__ float BiasOf(const Row& row, int32_t token) {
  int low = 0, high = row.slot->bias_count - 1;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (row.bias_tokens[middle] < token) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return row.bias_values[low];
}

__device__ __forceinline__ uint32_t BitsOfFour(const uint32_t* bitmap, int32_t first,
                                               int32_t vocab) {
  if (bitmap == nullptr || first >= vocab) return 0;
  return bitmap[first / 32] >> (first % 32) & 15u;
}

// The four logits `raw` from `first` after bias and penalties; NoLogit where forbidden or beyond
// the vocabulary.
__device__ __forceinline__ void Adjust(const Row& row, int32_t first, float4 raw, float out[4]) {
  const float logits[4] = {raw.x, raw.y, raw.z, raw.w};
  const uint32_t biased = BitsOfFour(row.biased, first, row.vocab);
  const uint32_t forbidden = BitsOfFour(row.forbidden, first, row.vocab);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int32_t token = first + i;
    float logit = FiniteLogit(logits[i]);
    if (biased >> i & 1u) logit = exact::Add(logit, BiasOf(row, token));
    if (row.history != nullptr && token < row.vocab) {
      logit = PenalisedLogit(logit, row.history[token], row.slot->penalties);
    }
    out[i] = token >= row.vocab || (forbidden >> i & 1u) ? NoLogit() : logit;
  }
}

// The first token of a thread's group in a tile.
__device__ __forceinline__ int32_t GroupFirst(int32_t tile, int group) {
  return tile * kTileTokens + (group * kTileThreads + static_cast<int>(threadIdx.x)) * 4;
}

__device__ __forceinline__ void LoadTile(const Row& row, int32_t tile, float out[4 * kGroups]) {
  float4 raw[kGroups];  // all under way before the first is looked at
#pragma unroll
  for (int g = 0; g < kGroups; ++g) raw[g] = LoadFour(row.logits, GroupFirst(tile, g), row.vocab);
#pragma unroll
  for (int g = 0; g < kGroups; ++g) Adjust(row, GroupFirst(tile, g), raw[g], out + 4 * g);
}

__device__ __forceinline__ int32_t TileToken(int32_t tile, int i) {
  return GroupFirst(tile, i / 4) + i % 4;
}

// Whether this block is the last of the row's `blocks` to come here; then it sees what the others
// wrote before. Called by the whole block; leaves the counter at zero.
__device__ __forceinline__ bool LastToArrive(uint32_t* arrivals, int32_t blocks) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicInc(arrivals, blocks - 1) == static_cast<uint32_t>(blocks - 1);
  __syncthreads();
  if (last) __threadfence();
  return last;
}

// The slot's next token. By one thread.
__device__ __forceinline__ void FinishDraw(const SamplerState& state, const SampleParams& params,
                                           int32_t row, int32_t slot, int32_t token) {
  params.tokens[row] = {token, 0};
  state.drawn[slot] = token;
  if (state.slots[slot].has_history) ++(*state.history)[int64_t{slot} * state.vocab + token];
}

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_SAMPLING_ROW_CUH_
