// Kernels, CPU backend: attention over pages. Plans tasks, runs them with the kernels chosen, and
// merges what was split over keys.

#include "kernels/cpu/attention.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <new>
#include <omp.h>
#include <vector>
#include <xmmintrin.h>

#include <sys/mman.h>

#include "base/check.h"
#include "kernels/cpu/attention_plan.h"
#include "kernels/cpu/attention_task.h"
#include "kernels/cpu/page_layout.h"
#include "kernels/cpu/region_errors.h"

namespace swaa::kernels::cpu {
namespace {

// Scratch memory that grows once and stays. Large pages where the system has them: a task walks all
// of it.
class GrowingBuffer {
 public:
  void* Reserve(int64_t bytes) {
    if (bytes > capacity_) {
      capacity_ = 0;
      const int64_t grown = (bytes + kLargePage - 1) / kLargePage * kLargePage;
      memory_.reset(std::aligned_alloc(kLargePage, grown));
      if (memory_ == nullptr) throw std::bad_alloc();
      capacity_ = grown;
      madvise(memory_.get(), capacity_, MADV_HUGEPAGE);
    }
    return memory_.get();
  }

 private:
  static constexpr int64_t kLargePage = int64_t{2} << 20;
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  std::unique_ptr<void, Free> memory_;
  int64_t capacity_ = 0;
};

// What a calling thread keeps from one call to the next.
struct Scratch {
  GrowingBuffer partial;
  std::vector<GrowingBuffer> workspaces;  // one an OpenMP thread
};

// Denormals cost a hundred times a normal number and carry nothing here.
class FlushDenormals {
 public:
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | kFlushToZero | kDenormalsAreZero); }
  ~FlushDenormals() { _mm_setcsr(saved_); }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  static constexpr unsigned kFlushToZero = 0x8000;
  static constexpr unsigned kDenormalsAreZero = 0x0040;
  const unsigned saved_;
};

// The task of a plan, in a layer's memory.
AttentionTask Locate(AttentionTask task, const AttentionPlace& place,
                     const AttentionParams& params) {
  task.q = params.q + place.q_begin;
  task.out = static_cast<std::byte*>(params.out) + place.out_begin;
  task.pages = params.page_table.Pages(place.slot, params.layer);
  task.pool = params.pages.base;
  return task;
}

void WriteRow(const AttentionTask& rows, int32_t row, const float* values, float factor) {
  const int64_t begin =
      row / rows.group * rows.out_stride + static_cast<int64_t>(row % rows.group) * rows.head_dim;
  if (rows.out_is_bf16) {
    Bf16* out = static_cast<Bf16*>(rows.out) + begin;
    for (int32_t d = 0; d < rows.head_dim; ++d) out[d] = ToBf16(values[d] * factor);
  } else {
    float* out = static_cast<float*>(rows.out) + begin;
    for (int32_t d = 0; d < rows.head_dim; ++d) out[d] = values[d] * factor;
  }
}

// Adds up the parts of one row, each scaled from its own maximum to the common one.
void MergeRow(const AttentionTask& task, int32_t parts, const float* partial, int32_t row) {
  const int32_t head_dim = task.head_dim;
  const int64_t rows = static_cast<int64_t>(task.queries) * task.group;
  const int64_t part_floats = PartialFloats(task);
  const float* maxima = partial + rows * head_dim;
  const float* sums = maxima + rows;
  float maximum = kNoMaximum;
  for (int32_t p = 0; p < parts; ++p) {
    maximum = std::fmax(maximum, maxima[p * part_floats + row]);
  }
  float total = 0;
  float values[kMaxHeadDim] = {};
  for (int32_t p = 0; p < parts; ++p) {
    const float weight = std::exp2(maxima[p * part_floats + row] - maximum);
    if (weight == 0) continue;
    total += weight * sums[p * part_floats + row];
    const float* part = partial + p * part_floats + static_cast<int64_t>(row) * head_dim;
    for (int32_t d = 0; d < head_dim; ++d) values[d] += weight * part[d];
  }
  WriteRow(task, row, values, 1 / total);
}

void RunTasks(const AttentionPlan& plan, const AttentionParams& params,
              const AttentionKernels& kernels, float* partial, void* workspace,
              std::atomic<size_t>* next) {
  for (size_t i = next->fetch_add(1); i < plan.entries.size(); i = next->fetch_add(1)) {
    const AttentionPlan::Entry& entry = plan.entries[i];
    AttentionTask task = Locate(entry.task, entry.place, params);
    if (entry.partial_begin >= 0) task.partial = partial + entry.partial_begin;
    const bool decode = RowsOfHead(task) <= kMaxDecodeRows;
    (decode ? kernels.decode : kernels.prefill)->run(task, workspace);
  }
}

void RunMerges(const AttentionPlan& plan, const AttentionParams& params, const float* partial,
               std::atomic<size_t>* next) {
  for (size_t i = next->fetch_add(1); i < plan.merges.size(); i = next->fetch_add(1)) {
    const AttentionMerge& merge = plan.merges[i];
    const AttentionTask rows = Locate(merge.rows, merge.place, params);
    for (int32_t row = 0; row < rows.queries * rows.group; ++row) {
      MergeRow(rows, merge.parts, partial + merge.partial_begin, row);
    }
  }
}

}  // namespace

int64_t KvPageBytes(DataType kv, int32_t kv_heads, int32_t head_dim) {
  return 2 * kv_heads * BlockBytes(kv, head_dim);
}

void Attention(const AttentionPlan& plan, const AttentionParams& params,
               const CpuAttentionOptions& options) {
  static thread_local Scratch scratch;
  const AttentionKernels& kernels = options.kernels;
  SWAA_CHECK_LE(plan.pages, params.page_table.max_pages);
  auto* partial = static_cast<float*>(scratch.partial.Reserve(plan.partial_floats * sizeof(float)));
  const int32_t head_dim = plan.head_dim;
  const int64_t workspace_bytes =
      std::max(kernels.prefill->workspace_bytes(plan.max_rows, head_dim),
               kernels.decode->workspace_bytes(std::max(plan.max_rows, kMaxDecodeRows), head_dim));
  if (scratch.workspaces.size() < static_cast<size_t>(options.threads)) {
    scratch.workspaces.resize(options.threads);
  }
  std::vector<GrowingBuffer>& workspaces = scratch.workspaces;
  std::atomic<size_t> next_task = 0;
  std::atomic<size_t> next_merge = 0;
  RegionErrors errors;
#pragma omp parallel num_threads(options.threads)
  {
    const FlushDenormals flush;
    errors.Run([&] {
      void* workspace = workspaces[omp_get_thread_num()].Reserve(workspace_bytes);
      RunTasks(plan, params, kernels, partial, workspace, &next_task);
    });
    if (!plan.merges.empty()) {
#pragma omp barrier
      RunMerges(plan, params, partial, &next_merge);
    }
  }
  errors.Rethrow();
}

}  // namespace swaa::kernels::cpu
