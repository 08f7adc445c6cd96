// Top-k and top-p as a cut of the falling order, without sorting a row: a histogram says in which
// bin the cut lies, and only that bin's tokens are put in order. Weights are whole numbers
// (FixedPointWeight), so their sums are the processor's.

#include "kernels/cuda/elementwise/launch.cuh"
#include "kernels/cuda/sampling/block_reduce.cuh"
#include "kernels/cuda/sampling/radix_cut.cuh"
#include "kernels/cuda/sampling/row.cuh"

namespace swaa::kernels::cuda {
namespace {

// A 32nd of a logit wide, falling; the last one takes all that is 64 and more below the largest.
__device__ __forceinline__ int BinOf(float max, float logit) {
  const float bin = __fmul_rn(__fadd_rn(max, -logit), 32.0f);
  return bin < kBins - 1 ? static_cast<int>(bin) : kBins - 1;
}

// The row of this block, if it is one that is cut.
__device__ __forceinline__ bool IsCut(const SamplerState& state, const SampleParams& params,
                                      int32_t row, LogitsRow* wanted) {
  if (row >= *params.live_rows) return false;
  *wanted = params.rows[row];
  return wanted->known_token < 0 && state.slots[wanted->slot].cuts(state.vocab);
}

__device__ __forceinline__ uint32_t WantedCount(const SlotState& slot, int32_t vocab) {
  const auto most = static_cast<uint32_t>(vocab);
  return slot.top_k != 0 && slot.top_k < most ? slot.top_k : most;
}

// Finds the first bin at which `reached` holds of all up to it, and writes its number and what is
// before it; writes nothing if there is none. Called by the whole block.
template <typename Reached>
__device__ __forceinline__ void FindBin(const uint32_t* counts, const uint64_t* masses,
                                        const Reached& reached, RowState* filter, int32_t* found) {
  constexpr int kShare = kBins / kTileThreads;
  const int first = threadIdx.x * kShare;
  uint32_t count = 0;
  uint64_t mass = 0;
  for (int i = first; i < first + kShare; ++i) {
    count += counts[i];
    mass += masses[i];
  }
  uint32_t count_to = BlockSumBefore(count, &count);
  uint64_t mass_to = BlockSumBefore(mass, &mass);
  bool before = reached(count_to, mass_to);
  for (int i = first; i < first + kShare; ++i) {
    const uint32_t count_next = count_to + counts[i];
    const uint64_t mass_next = mass_to + masses[i];
    const bool here = reached(count_next, mass_next);
    if (here && !before) {
      *found = i;
      filter->above_count = count_to;
      filter->above_mass = mass_to;
    }
    before = here;
    count_to = count_next;
    mass_to = mass_next;
  }
  __syncthreads();
}

// From the whole histogram: which bins are to be looked into.
__device__ __forceinline__ void ChooseBins(const SlotState& slot, int32_t vocab,
                                           const uint32_t* counts, const uint64_t* masses,
                                           RowState* filter) {
  __shared__ int32_t found;
  if (threadIdx.x == 0) {
    found = -1;
    filter->above_count = 0;
    filter->above_mass = 0;
  }
  __syncthreads();
  const uint32_t wanted = WantedCount(slot, vocab);
  if (wanted < static_cast<uint32_t>(vocab)) {
    FindBin(
        counts, masses, [&](uint32_t count, uint64_t) { return count >= wanted; }, filter, &found);
    if (threadIdx.x != 0) return;
    filter->enough_mass = -1;
    // There may be fewer tokens than top-k keeps: then the cut lies behind them all.
    filter->last_bin = found < 0 ? kBins - 1 : found;
    filter->first_bin = found < 0 ? 0 : found;
    if (slot.top_p >= 1) return;
    // What top-p wants is a share of what top-k keeps: the whole head is looked at.
    filter->first_bin = 0;
    filter->above_count = 0;
    filter->above_mass = 0;
    return;
  }
  double total = 0;
  for (int i = threadIdx.x; i < kBins; i += kTileThreads) total += static_cast<double>(masses[i]);
  total = BlockSum(total);  // whole numbers: exact in any order
  const double enough = exact::Mul(static_cast<double>(slot.top_p), total);
  FindBin(
      counts, masses, [&](uint32_t, uint64_t mass) { return static_cast<double>(mass) >= enough; },
      filter, &found);
  if (threadIdx.x != 0) return;
  filter->first_bin = filter->last_bin = found;
  filter->enough_mass = enough;
}

__global__ void __launch_bounds__(kTileThreads)
    HistogramKernel(const __grid_constant__ SamplerState state,
                    const __grid_constant__ SampleParams params) {
  BeginKernel();
  const int32_t row = blockIdx.y, tile = blockIdx.x;
  LogitsRow wanted;
  if (!IsCut(state, params, row, &wanted)) return;
  __shared__ uint32_t counts[kBins];
  __shared__ unsigned long long masses[kBins];
  for (int i = threadIdx.x; i < kBins; i += kTileThreads) {
    counts[i] = 0;
    masses[i] = 0;
  }
  __syncthreads();
  RowState& filter = state.rows[row];
  const Row r = MakeRow(state, params.logits, row, wanted.slot, filter.forbid);
  const bool weighs = r.slot->top_p < 1;
  const float max = filter.max;
  float logits[4 * kGroups];
  LoadTile(r, tile, logits);
#pragma unroll
  for (int i = 0; i < 4 * kGroups; ++i) {
    if (logits[i] == NoLogit()) continue;
    const int bin = BinOf(max, logits[i]);
    atomicAdd(&counts[bin], 1u);
    if (!weighs) continue;
    const double scaled = ScaledLogit(logits[i], max, r.slot->inverse_temperature);
    if (scaled <= kWeightless) continue;
    atomicAdd(&masses[bin], static_cast<unsigned long long>(FixedPointWeight(scaled)));
  }
  __syncthreads();
  uint32_t* row_counts = state.bin_counts + int64_t{row} * kBins;
  auto* row_masses = reinterpret_cast<unsigned long long*>(state.bin_masses + int64_t{row} * kBins);
  for (int i = threadIdx.x; i < kBins; i += kTileThreads) {
    if (counts[i] != 0) atomicAdd(row_counts + i, counts[i]);
    if (masses[i] != 0) atomicAdd(row_masses + i, masses[i]);
  }
  if (!LastToArrive(state.arrivals + row, state.tiles)) return;
  for (int i = threadIdx.x; i < kBins; i += kTileThreads) {
    counts[i] = __ldcg(row_counts + i);
    masses[i] = __ldcg(row_masses + i);
    row_counts[i] = 0;
    row_masses[i] = 0;
  }
  __syncthreads();
  ChooseBins(*r.slot, state.vocab, counts, reinterpret_cast<const uint64_t*>(masses), &filter);
}

// Sorts codes[0 .. size - 1], size a power of two, from the largest down (bitonic).
__device__ __forceinline__ void SortDescending(uint64_t* codes, int size) {
  for (int run = 2; run <= size; run *= 2) {
    for (int stride = run / 2; stride > 0; stride /= 2) {
      for (int i = threadIdx.x; i < size / 2; i += kTileThreads) {
        const int low = 2 * i - (i & (stride - 1)), high = low + stride;
        const bool descending = (low & run) == 0;
        const uint64_t a = codes[low], b = codes[high];
        if ((a < b) == descending) {
          codes[low] = b;
          codes[high] = a;
        }
      }
      __syncthreads();
    }
  }
}

// How many of the sorted candidates top-p keeps of the first `count`; at least one.
__device__ __forceinline__ int CountByMass(const uint64_t* codes, int count, const SlotState& slot,
                                           const RowState& filter) {
  __shared__ int kept;
  const int share = (count + kTileThreads - 1) / kTileThreads;
  const int first = min(count, static_cast<int>(threadIdx.x) * share);
  const int end = min(count, first + share);
  const float max = filter.max;
  const auto weight = [&](int i) {
    return FixedPointWeight(
        ScaledLogit(LogitOf(KeyOfCode(codes[i])), max, slot.inverse_temperature));
  };
  double sum = 0;
  for (int i = first; i < end; ++i) sum += weight(i);
  if (threadIdx.x == 0) kept = count;
  double total;
  double passed = static_cast<double>(filter.above_mass) + BlockSumBefore(sum, &total);
  const double enough = filter.enough_mass >= 0
                            ? filter.enough_mass
                            : exact::Mul(static_cast<double>(slot.top_p), total);
  for (int i = first; i < end; ++i) {
    passed += weight(i);
    if (passed >= enough) {
      atomicMin(&kept, i + 1);
      break;
    }
  }
  __syncthreads();
  return kept;
}

// The cut among `count` candidates, all the tokens of the chosen bins.
__device__ __forceinline__ void CutCandidates(const uint64_t* from, int count,
                                              const SlotState& slot, int32_t vocab,
                                              RowState* filter) {
  __shared__ uint64_t codes[kMaxCandidates];
  int size = 1;
  while (size < count) size *= 2;
  for (int i = threadIdx.x; i < size; i += kTileThreads)
    codes[i] = i < count ? __ldcg(from + i) : 0;
  __syncthreads();
  SortDescending(codes, size);
  int kept = count;
  const uint32_t wanted = WantedCount(slot, vocab);
  if (wanted < static_cast<uint32_t>(vocab)) {
    kept = min(kept, static_cast<int>(wanted - filter->above_count));
  }
  if (slot.top_p < 1) kept = CountByMass(codes, kept, slot, *filter);
  if (threadIdx.x != 0) return;
  filter->cut_key = KeyOfCode(codes[kept - 1]);
  filter->cut_token = TokenOfCode(codes[kept - 1]);
}

__global__ void __launch_bounds__(kTileThreads)
    CutKernel(const __grid_constant__ SamplerState state,
              const __grid_constant__ SampleParams params) {
  BeginKernel();
  const int32_t row = blockIdx.y, tile = blockIdx.x;
  LogitsRow wanted;
  if (!IsCut(state, params, row, &wanted)) return;
  __shared__ uint32_t found, place;
  if (threadIdx.x == 0) found = place = 0;
  __syncthreads();
  RowState& filter = state.rows[row];
  const Row r = MakeRow(state, params.logits, row, wanted.slot, filter.forbid);
  const int32_t first_bin = filter.first_bin, last_bin = filter.last_bin;
  const float max = filter.max;
  float logits[4 * kGroups];
  LoadTile(r, tile, logits);
  uint32_t chosen = 0;
#pragma unroll
  for (int i = 0; i < 4 * kGroups; ++i) {
    if (logits[i] == NoLogit()) continue;
    const int bin = BinOf(max, logits[i]);
    if (bin >= first_bin && bin <= last_bin) chosen |= 1u << i;
  }
  uint32_t at = chosen != 0 ? atomicAdd(&found, __popc(chosen)) : 0;
  __syncthreads();
  if (threadIdx.x == 0 && found != 0) place = atomicAdd(state.candidate_counts + row, found);
  __syncthreads();
  uint64_t* candidates = state.candidates + int64_t{row} * kMaxCandidates;
  at += place;
#pragma unroll
  for (int i = 0; i < 4 * kGroups; ++i) {
    if ((chosen >> i & 1u) == 0) continue;
    if (at < kMaxCandidates) candidates[at] = CodeOf(logits[i], TileToken(tile, i));
    ++at;
  }
  if (!LastToArrive(state.arrivals + row, state.tiles)) return;
  const uint32_t count = __ldcg(state.candidate_counts + row);
  __syncthreads();
  if (threadIdx.x == 0) state.candidate_counts[row] = 0;
  if (count <= kMaxCandidates) {
    CutCandidates(candidates, static_cast<int>(count), *r.slot, state.vocab, &filter);
    return;
  }
  RadixCut(r, state.tiles, WantedCount(*r.slot, state.vocab), &filter);
}

}  // namespace

void LaunchFindCuts(const SamplerState& state, const SampleParams& params, const Launch& launch) {
  const dim3 grid(state.tiles, params.max_rows);
  LaunchKernel(HistogramKernel, grid, dim3(kTileThreads), launch, state, params);
  LaunchKernel(CutKernel, grid, dim3(kTileThreads), launch, state, params);
}

}  // namespace swaa::kernels::cuda
