// Slots that requests take: what the former ones left is cleared, then what the new ones bring is
// spread.

#include "kernels/cuda/elementwise/launch.cuh"
#include "kernels/cuda/sampling/state.h"

namespace swaa::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kBlocksPerSlot = 64;

// This thread's share of 0 .. count - 1, among the blocks of one slot.
template <typename Visit>
__device__ __forceinline__ void ForShare(int64_t count, const Visit& visit) {
  const int64_t stride = int64_t{gridDim.y} * kThreads;
  for (int64_t i = int64_t{blockIdx.y} * kThreads + threadIdx.x; i < count; i += stride) visit(i);
}

__global__ void __launch_bounds__(kThreads)
    ClearSlotsKernel(const __grid_constant__ SamplerState state, const SetupRecord* records,
                     const uint32_t* words) {
  BeginKernel();
  const SetupRecord& record = records[blockIdx.x];
  const int64_t slot = record.slot;
  const int32_t biases = record.state.bias_count;
  ForShare(state.words, [&](int64_t i) {
    state.biased[slot * state.words + i] = 0;
    state.forbidden[slot * state.words + i] = 0;
  });
  ForShare(biases, [&](int64_t i) {
    state.bias_tokens[slot * kMaxLogitBiases + i] = static_cast<int32_t>(words[record.biases + i]);
    state.bias_values[slot * kMaxLogitBiases + i] =
        __uint_as_float(words[record.biases + biases + i]);
  });
  if (record.state.has_history) {
    uint32_t* history = *state.history + slot * state.vocab;
    ForShare(state.vocab, [&](int64_t i) { history[i] = 0; });
  }
  ForShare(1, [&](int64_t) {
    state.slots[slot] = record.state;
    state.drawn[slot] = -1;
  });
}

__device__ __forceinline__ void SetBit(uint32_t* bitmap, uint32_t token) {
  atomicOr(bitmap + token / 32, 1u << (token % 32));
}

__global__ void __launch_bounds__(kThreads)
    FillSlotsKernel(const __grid_constant__ SamplerState state, const SetupRecord* records,
                    const uint32_t* words) {
  BeginKernel();
  const SetupRecord& record = records[blockIdx.x];
  const int64_t slot = record.slot;
  ForShare(record.state.bias_count,
           [&](int64_t i) { SetBit(state.biased + slot * state.words, words[record.biases + i]); });
  ForShare(record.forbidden_count, [&](int64_t i) {
    SetBit(state.forbidden + slot * state.words, words[record.forbidden + i]);
  });
  if (!record.state.has_history) return;
  uint32_t* history = *state.history + slot * state.vocab;
  ForShare(record.prompt_count,
           [&](int64_t i) { atomicOr(history + words[record.prompt + i], kInPrompt); });
  ForShare(record.output_count,
           [&](int64_t i) { atomicAdd(history + words[record.output + i], 1u); });
}

}  // namespace

void LaunchSetUp(const SamplerState& state, const SetupRecord* records, int32_t count,
                 const uint32_t* words, const Launch& launch) {
  const dim3 grid(count, kBlocksPerSlot);
  LaunchKernel(ClearSlotsKernel, grid, dim3(kThreads), launch, state, records, words);
  LaunchKernel(FillSlotsKernel, grid, dim3(kThreads), launch, state, records, words);
}

}  // namespace swaa::kernels::cuda
