// Rows that are gathered, entries that are set, and words that are copied: Embed, GatherRows,
// SetPageTable, CopyWords.

#include <algorithm>
#include <set>
#include <tuple>

#include "base/check.h"
#include "kernels/cuda/elementwise/elementwise.h"
#include "kernels/cuda/elementwise/launch.cuh"
#include "kernels/cuda/elementwise/vector8.cuh"

namespace swaa::kernels::cuda {
namespace {

constexpr int kThreads = 256;

int64_t Blocks(int64_t threads) { return (threads + kThreads - 1) / kThreads; }

template <typename Out>
__global__ void __launch_bounds__(kThreads) EmbedKernel(const __grid_constant__ EmbedParams p) {
  BeginKernel();
  const int64_t row = blockIdx.x;
  const int64_t at = (int64_t{blockIdx.y} * kThreads + threadIdx.x) * 8;
  if (at >= p.hidden) return;
  int32_t id = p.ids[row];
  if (id == kDrawnToken) {
    const int32_t slot = p.slots[row];
    id = slot >= 0 ? p.drawn[slot] : 0;
  }
  // Garbage of dead rows must not read beyond the table.
  if (id < 0 || id >= p.vocab) id = 0;
  Store8(static_cast<Out*>(p.out) + row * p.hidden + at, Load8(p.table + id * p.hidden + at));
}

__global__ void __launch_bounds__(kThreads)
    GatherRowsKernel(const __grid_constant__ GatherRowsParams p) {
  BeginKernel();
  const int64_t row = blockIdx.x, vectors = p.row_bytes / 16;
  const int64_t at = int64_t{blockIdx.y} * kThreads + threadIdx.x;
  if (at >= vectors) return;
  const int64_t from = p.indices[row];
  if (from < 0) return;
  static_cast<uint4*>(p.out)[row * vectors + at] =
      static_cast<const uint4*>(p.x)[from * vectors + at];
}

__global__ void __launch_bounds__(kThreads)
    SetPageTableKernel(const __grid_constant__ SetPageTableParams p) {
  BeginKernel();
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= p.capacity || (p.count != nullptr && i >= *p.count)) return;
  const PageTableEntry update = p.updates[i];
  const int64_t row = int64_t{update.slot} * p.num_layers + update.layer;
  p.entries[row * p.max_pages + update.block] = update.page;
}

__global__ void __launch_bounds__(kThreads)
    CopyWordsKernel(const __grid_constant__ CopyWordsParams p) {
  BeginKernel();
  const auto* from = static_cast<const uint64_t*>(p.from);
  auto* to = static_cast<uint64_t*>(p.to);
  const int64_t words = p.bytes / 8, stride = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < words; i += stride)
    to[i] = __ldcv(reinterpret_cast<const unsigned long long*>(from + i));
}

}  // namespace

void Embed(const EmbedParams& params, const Launch& launch) {
  SWAA_CHECK(params.hidden % 8 == 0 && params.hidden > 0) << params.hidden;
  if (params.rows == 0) return;
  const dim3 grid(params.rows, Blocks(params.hidden / 8));
  const auto kernel = params.out_type == DataType::kF32 ? EmbedKernel<float> : EmbedKernel<Bf16>;
  LaunchKernel(kernel, grid, dim3(kThreads), launch, params);
}

void GatherRows(const GatherRowsParams& params, const Launch& launch) {
  SWAA_CHECK(params.row_bytes % 16 == 0 && params.row_bytes > 0) << params.row_bytes;
  if (params.rows == 0) return;
  const dim3 grid(params.rows, Blocks(params.row_bytes / 16));
  LaunchKernel(GatherRowsKernel, grid, dim3(kThreads), launch, params);
}

void SetPageTable(const SetPageTableParams& params, const Launch& launch) {
  if (params.capacity == 0) return;
  LaunchKernel(SetPageTableKernel, dim3(Blocks(params.capacity)), dim3(kThreads), launch, params);
}

void CopyWords(const CopyWordsParams& params, const Launch& launch) {
  constexpr int64_t kMaxBlocks = 128;
  SWAA_CHECK_EQ(params.bytes % 8, 0);
  if (params.bytes == 0) return;
  LaunchKernel(CopyWordsKernel, dim3(std::min(Blocks(params.bytes / 8), kMaxBlocks)),
               dim3(kThreads), launch, params);
}

std::vector<PageTableEntry> KeepLastOfEach(std::span<const PageTableEntry> updates) {
  std::vector<PageTableEntry> kept;
  std::set<std::tuple<int32_t, int32_t, int32_t>> seen;
  for (size_t i = updates.size(); i-- > 0;) {
    const PageTableEntry& update = updates[i];
    if (seen.emplace(update.slot, update.layer, update.block).second) kept.push_back(update);
  }
  std::reverse(kept.begin(), kept.end());
  return kept;
}

}  // namespace swaa::kernels::cuda
