// Plans decoding on the device, once a step and span class: lays all items (sequence, KV head) with
// their visited key tiles on one line and cuts it into pieces of equal weight, one a block, so that
// blocks are balanced whatever the lengths and windows. An item weighs its tiles, and ahead of them
// what beginning it costs: a block that ends one item and begins another has fewer tiles, and a cut
// that falls there is one between two items.

#include <algorithm>

#include "base/check.h"
#include "kernels/cuda/attention/decode_params.h"
#include "kernels/cuda/attention/visited_tiles.h"
#include "kernels/cuda/cuda_check.h"

namespace swaa::kernels::cuda {
namespace {

constexpr int kThreads = kMaxDecodeSequences;
constexpr int kSharedRecords = 256;  // the first ones, which small batches need again
// In tiles: beginning an item waits for queries, ending one for other blocks, whatever its length.
constexpr int kBeginWeight = 3;

__device__ DecodeRecord MakeRecord(const SequenceRows& rows, const KeySpan& span) {
  const ResolvedSpan resolved = Resolve(span);
  DecodeRecord record = {};
  record.visited = Visit(rows.first_position, rows.first_position, resolved, kPageTokens);
  record.tiles = record.visited.count();
  record.weight = record.tiles + kBeginWeight;
  record.slot = rows.slot;
  record.row = rows.first_row;
  record.position = rows.first_position;
  record.window = resolved.window;
  record.sinks = resolved.sinks;
  return record;
}

// begin[i] = sum of `weight` of threads 0 .. i - 1; begin[kThreads] = the whole sum.
__device__ void PrefixSum(int weight, int* warp_sums, int* begin) {
  const int i = threadIdx.x, lane = i & 31, warp = i >> 5;
  int sum = weight;
  for (int d = 1; d < 32; d *= 2) {
    const int x = __shfl_up_sync(~0u, sum, d);
    if (lane >= d) sum += x;
  }
  if (lane == 31) warp_sums[warp] = sum;
  __syncthreads();
  int before = 0;
  for (int w = 0; w < warp; ++w) before += warp_sums[w];
  begin[i] = before + sum - weight;
  if (i == kThreads - 1) begin[kThreads] = before + sum;
  __syncthreads();
}

// A tile, and how many lie before it on the line.
struct Place {
  int sequence, head, tile, before;
};

// The first tile at or behind `at`. At the line's end: none.
__device__ Place Locate(int at, int n, const int* begin, int kv_heads) {
  int low = 0, high = n;  // the last sequence that begins at or before it
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (begin[middle] * kv_heads <= at)
      low = middle;
    else
      high = middle;
  }
  const int weight = begin[low + 1] - begin[low], rest = at - begin[low] * kv_heads;
  Place place = {.sequence = low, .head = rest / weight};
  place.tile = max(rest - place.head * weight - kBeginWeight, 0);
  place.before = (begin[low] - low * kBeginWeight) * kv_heads +
                 place.head * (weight - kBeginWeight) + place.tile;
  return place;
}

// The piece of block i.
__device__ DecodeBlock MakeBlock(int i, int n, const int* begin, int kv_heads, int blocks,
                                 const DecodeRecord* shared_records, const DecodeRecord* records) {
  DecodeBlock block = {};
  block.total = begin[n] * kv_heads;
  block.blocks = min(block.total, blocks);
  if (i >= block.blocks) return block;
  const auto cut = [&](int at) {
    return Locate(static_cast<int64_t>(block.total) * at / block.blocks, n, begin, kv_heads);
  };
  const Place first = cut(i);
  block.tiles = cut(i + 1).before - first.before;
  block.sequence = first.sequence;
  block.head = first.head;
  block.tile = first.tile;
  block.record =
      first.sequence < kSharedRecords ? shared_records[first.sequence] : records[first.sequence];
  return block;
}

__global__ void __launch_bounds__(kThreads)
    PlanDecode(const StepHeader* header, DecodePlan* plans, int kv_heads, int blocks) {
  __shared__ int warp_sums[32];
  __shared__ int begin[kThreads + 1];
  __shared__ DecodeRecord records[kSharedRecords];
  const int i = threadIdx.x, n = header->decode_sequences;
  const char* bytes = reinterpret_cast<const char*>(header);
  const auto* sequences = reinterpret_cast<const SequenceRows*>(bytes + header->sequences_offset);
  const auto* spans = reinterpret_cast<const KeySpan*>(bytes + header->spans_offset);
  for (int c = blockIdx.x; c < header->classes; c += gridDim.x) {
    DecodePlan& plan = plans[c];
    DecodeRecord record = {};
    if (i < n) record = MakeRecord(sequences[i], spans[static_cast<int64_t>(c) * n + i]);
    PrefixSum(record.weight, warp_sums, begin);
    if (i < n) {
      record.before = begin[i];
      plan.records[i] = record;
      if (i < kSharedRecords) records[i] = record;
    }
    __syncthreads();
    if (i < blocks)
      plan.blocks[i] = MakeBlock(i, n, begin, kv_heads, blocks, records, plan.records);
    __syncthreads();
  }
  // Attention reads its plan before it waits for the kernel before it, which need not be this one:
  // what is written here is in L2 when the first kernel after this one starts.
  __threadfence();
}

}  // namespace

void LaunchDecodePlan(const StepHeader* step, DecodePlan* plans, int32_t plan_blocks,
                      int32_t kv_heads, int32_t blocks, cudaStream_t stream) {
  SWAA_CHECK_LE(blocks, kMaxDecodeBlocks);
  PlanDecode<<<plan_blocks, kThreads, 0, stream>>>(step, plans, kv_heads, blocks);
  SWAA_CUDA_CHECK_LAUNCH();
}

}  // namespace swaa::kernels::cuda
