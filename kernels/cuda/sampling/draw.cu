// Draws: the largest logit, or the largest logit / temperature + noise, over a row's tiles.

#include "kernels/cuda/elementwise/launch.cuh"
#include "kernels/cuda/sampling/block_reduce.cuh"
#include "kernels/cuda/sampling/row.cuh"

namespace swaa::kernels::cuda {
namespace {

__device__ __forceinline__ DrawPartial Better(const DrawPartial& a, const DrawPartial& b) {
  DrawPartial better = a.score > b.score || (a.score == b.score && a.token < b.token) ? a : b;
  better.max = fmaxf(a.max, b.max);
  return better;
}

__device__ __forceinline__ DrawPartial Nothing() { return {-INFINITY, kNoToken, NoLogit()}; }

// The best of the tokens that `keeps` lets through.
template <typename Keeps>
__device__ __forceinline__ DrawPartial DrawFromTile(const Row& row, int32_t tile, GumbelKey key,
                                                    bool noisy, const Keeps& keeps) {
  float logits[4 * kGroups];
  LoadTile(row, tile, logits);
  DrawPartial best = Nothing();
#pragma unroll
  for (int i = 0; i < 4 * kGroups; ++i) best.max = fmaxf(best.max, logits[i]);
  best.max = BlockMax(best.max);
  const double inverse_temperature = row.slot->inverse_temperature;
  // No token so far below the tile's largest wins over it, whatever the noise. Filters keep a head
  // of the order: where the largest is cut, so are all.
  const double hopeless =
      static_cast<double>(best.max) * inverse_temperature - (kMaxGumbelNoise - kMinGumbelNoise);
#pragma unroll
  for (int i = 0; i < 4 * kGroups; ++i) {
    const int32_t token = TileToken(tile, i);
    if (logits[i] == NoLogit() || !keeps(logits[i], token)) continue;
    double score = logits[i];
    if (noisy) {
      if (score * inverse_temperature < hopeless) continue;
      score = DrawScore(logits[i], inverse_temperature, key, token);
    }
    if (score > best.score || (score == best.score && token < best.token)) {
      best.score = score;
      best.token = token;
    }
  }
  return best;
}

__device__ __forceinline__ DrawPartial ReducePartials(const SamplerState& state, int32_t row) {
  DrawPartial best = Nothing();
  for (int32_t tile = threadIdx.x; tile < state.tiles; tile += kTileThreads) {
    best = Better(best, state.draw_partials[int64_t{row} * state.tiles + tile]);
  }
  return BlockReduce(best, Better);
}

__global__ void __launch_bounds__(kTileThreads)
    DrawKernel(const __grid_constant__ SamplerState state,
               const __grid_constant__ SampleParams params) {
  BeginKernel();
  const int32_t row = blockIdx.y, tile = blockIdx.x;
  if (row >= *params.live_rows) return;
  const LogitsRow wanted = params.rows[row];
  if (wanted.known_token >= 0) {
    if (tile == 0 && threadIdx.x == 0) params.tokens[row] = {wanted.known_token, 0};
    return;
  }
  const SlotState& slot = state.slots[wanted.slot];
  const bool filtered = slot.filters(state.vocab);
  const bool noisy = slot.temperature > 0 && !filtered;
  const GumbelKey key = MakeGumbelKey(slot.seed, wanted.output_index);
  const auto all = [](float, int32_t) { return true; };
  const auto draw = [&](int32_t of_tile, bool forbid) {
    const Row r = MakeRow(state, params.logits, row, wanted.slot, forbid);
    return BlockReduce(DrawFromTile(r, of_tile, key, noisy, all), Better);
  };
  const DrawPartial mine = draw(tile, wanted.forbid);
  if (threadIdx.x == 0) state.draw_partials[int64_t{row} * state.tiles + tile] = mine;
  if (!LastToArrive(state.arrivals + row, state.tiles)) return;

  bool forbid = wanted.forbid;
  DrawPartial best = ReducePartials(state, row);
  if (best.token == kNoToken && forbid) {  // all are forbidden: then none is
    forbid = false;
    for (int32_t t = 0; t < state.tiles; ++t) best = Better(best, draw(t, false));
  }
  if (threadIdx.x != 0) return;
  if (!filtered) {
    FinishDraw(state, params, row, wanted.slot, best.token);
    return;
  }
  RowState& filter = state.rows[row];
  filter.max = best.max;
  filter.forbid = forbid;
  filter.cut_key = 0;
  filter.cut_token = kNoToken;
}

__global__ void __launch_bounds__(kTileThreads)
    DrawFilteredKernel(const __grid_constant__ SamplerState state,
                       const __grid_constant__ SampleParams params) {
  BeginKernel();
  const int32_t row = blockIdx.y, tile = blockIdx.x;
  if (row >= *params.live_rows) return;
  const LogitsRow wanted = params.rows[row];
  if (wanted.known_token >= 0 || !state.slots[wanted.slot].filters(state.vocab)) return;
  const RowState& filter = state.rows[row];
  const Row r = MakeRow(state, params.logits, row, wanted.slot, filter.forbid);
  const double inverse_temperature = r.slot->inverse_temperature;
  const double min_scaled = r.slot->min_scaled;
  const float max = filter.max;
  const uint32_t cut_key = filter.cut_key;
  const int32_t cut_token = filter.cut_token;
  const auto keeps = [&](float logit, int32_t token) {
    const uint32_t key = KeyOf(logit);
    if (key < cut_key || (key == cut_key && token > cut_token)) return false;
    return ScaledLogit(logit, max, inverse_temperature) >= min_scaled;
  };
  const GumbelKey key = MakeGumbelKey(r.slot->seed, wanted.output_index);
  const DrawPartial mine = BlockReduce(DrawFromTile(r, tile, key, true, keeps), Better);
  if (threadIdx.x == 0) state.draw_partials[int64_t{row} * state.tiles + tile] = mine;
  if (!LastToArrive(state.arrivals + row, state.tiles)) return;
  const DrawPartial best = ReducePartials(state, row);
  if (threadIdx.x == 0) FinishDraw(state, params, row, wanted.slot, best.token);
}

dim3 TileGrid(const SamplerState& state, const SampleParams& params) {
  return {static_cast<unsigned>(state.tiles), static_cast<unsigned>(params.max_rows)};
}

}  // namespace

void LaunchDraw(const SamplerState& state, const SampleParams& params, const Launch& launch) {
  LaunchKernel(DrawKernel, TileGrid(state, params), dim3(kTileThreads), launch, state, params);
}

void LaunchDrawFiltered(const SamplerState& state, const SampleParams& params,
                        const Launch& launch) {
  LaunchKernel(DrawFilteredKernel, TileGrid(state, params), dim3(kTileThreads), launch, state,
               params);
}

}  // namespace swaa::kernels::cuda
