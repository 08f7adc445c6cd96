// Log-probabilities and the most likely tokens, from the logits as they are.

#include "kernels/cuda/elementwise/launch.cuh"
#include "kernels/cuda/sampling/block_reduce.cuh"
#include "kernels/cuda/sampling/row.cuh"

namespace swaa::kernels::cuda {
namespace {

// The tile's `count` largest codes, falling, to codes[]; 0 past the last.
__device__ __forceinline__ void LargestOfTile(const uint64_t mine[4 * kGroups], int count,
                                              uint64_t* codes) {
  uint64_t bound = ~uint64_t{0};  // what was taken is not below it
  uint64_t best = 0;
#pragma unroll
  for (int i = 0; i < 4 * kGroups; ++i) best = mine[i] > best ? mine[i] : best;
  for (int n = 0; n < count; ++n) {
    bound = BlockMax(best);
    if (threadIdx.x == 0) codes[n] = bound;
    if (best != bound || bound == 0) continue;
    best = 0;
#pragma unroll
    for (int i = 0; i < 4 * kGroups; ++i) {
      if (mine[i] < bound && mine[i] > best) best = mine[i];
    }
  }
}

__device__ __forceinline__ void ScoreTile(const float* logits, int32_t tile, int32_t vocab,
                                          int alternatives, ScorePartial* partial) {
  uint64_t codes[4 * kGroups];
  float values[4 * kGroups];
  float max = NoLogit();
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
    const int32_t first = GroupFirst(tile, g);
    const float4 raw = LoadFour(logits, first, vocab);
    const float four[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const bool is_token = first + i < vocab;
      const float value = is_token ? FiniteLogit(four[i]) : NoLogit();
      values[4 * g + i] = value;
      codes[4 * g + i] = is_token ? CodeOf(value, first + i) : 0;
      max = fmaxf(max, value);
    }
  }
  max = BlockMax(max);
  double sum = 0;
#pragma unroll
  for (int i = 0; i < 4 * kGroups; ++i) {
    if (values[i] != NoLogit()) sum += static_cast<double>(exact::Exp(values[i] - max));
  }
  sum = BlockSum(sum);
  if (threadIdx.x == 0) {
    partial->sum = sum;
    partial->max = max;
  }
  LargestOfTile(codes, alternatives, partial->codes);
}

// ln of the sum of e^logit over the row, as (max, ln of the sum of e^(logit - max)).
__device__ __forceinline__ void ReduceSums(const ScorePartial* partials, int32_t tiles, float* max,
                                           double* log_total) {
  float most = NoLogit();
  for (int32_t t = threadIdx.x; t < tiles; t += kTileThreads) most = fmaxf(most, partials[t].max);
  most = BlockMax(most);
  double total = 0;
  for (int32_t t = threadIdx.x; t < tiles; t += kTileThreads) {
    total += partials[t].sum * exp(static_cast<double>(partials[t].max) - most);
  }
  *max = most;
  *log_total = log(BlockSum(total));
}

__global__ void __launch_bounds__(kTileThreads)
    ScoreKernel(const __grid_constant__ SamplerState state,
                const __grid_constant__ SampleParams params) {
  BeginKernel();
  const int32_t row = blockIdx.y, tile = blockIdx.x;
  if (row >= *params.live_rows) return;
  const LogitsRow wanted = params.rows[row];
  if (wanted.alternatives < 0) return;
  const float* logits = params.logits + int64_t{row} * state.vocab;
  const int alternatives = params.alternatives == nullptr
                               ? 0
                               : min(min(wanted.alternatives, kMaxAlternatives), state.vocab);
  ScorePartial* partials = state.score_partials + int64_t{row} * state.tiles;
  ScoreTile(logits, tile, state.vocab, alternatives, partials + tile);
  if (!LastToArrive(state.arrivals + row, state.tiles)) return;

  float max;
  double log_total;
  ReduceSums(partials, state.tiles, &max, &log_total);
  const auto logprob = [&](float logit) {
    return static_cast<float>(static_cast<double>(logit) - max - log_total);
  };
  if (threadIdx.x == 0) {
    SampledToken& token = params.tokens[row];
    token.logprob = logprob(FiniteLogit(logits[token.token]));
  }
  // Each thread walks the lists of its tiles; the block takes the largest of the heads.
  int taken = 0;  // of this thread's only list, or of the one that `head` comes from
  const int32_t list = threadIdx.x;
  uint64_t head = list < state.tiles && alternatives > 0 ? partials[list].codes[0] : 0;
  for (int n = 0; n < alternatives; ++n) {
    const uint64_t best = BlockMax(head);
    if (threadIdx.x == 0) {
      params.alternatives[row].tokens[n] = TokenOfCode(best);
      params.alternatives[row].logprobs[n] = logprob(LogitOf(KeyOfCode(best)));
    }
    if (head != best) continue;
    ++taken;
    head = taken < alternatives ? partials[list].codes[taken] : 0;
  }
}

}  // namespace

void LaunchScore(const SamplerState& state, const SampleParams& params, const Launch& launch) {
  const dim3 grid(state.tiles, params.max_rows);
  LaunchKernel(ScoreKernel, grid, dim3(kTileThreads), launch, state, params);
}

}  // namespace swaa::kernels::cuda
