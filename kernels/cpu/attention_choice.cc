// Kernels, CPU backend: candidates for attention and the race between them.

#include "kernels/cpu/attention_choice.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <emmintrin.h>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <time.h>
#include <tuple>

#include "base/check.h"
#include "kernels/cpu/page_layout.h"

namespace swaa::kernels::cpu {
namespace {

// A variant must be so much faster than one that is preferred to it.
constexpr double kLead = 1.1;

// Best times of several rounds, candidates by turns, so that what else runs on the machine does not
// decide.
constexpr int kRounds = 5;

// Processor time of the calling thread: it stands still while others have the core.
double Now() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

constexpr int32_t kHeadDim = 128;
constexpr int32_t kGroup = 4;
constexpr int32_t kPages = 64;
constexpr int64_t kPageBytes = 4LL * kPageTokens * kHeadDim;  // one KV head, bf16
constexpr int32_t kPrefillQueries = 32;
constexpr int32_t kPrefillPages = 4;

// One KV head's rows over some pages of pseudo-random numbers, as a task of its own.
class Race {
 public:
  explicit Race(const std::vector<const AttentionVariant*>& candidates)
      : candidates_(candidates),
        q_(kPrefillQueries * kGroup * kHeadDim),
        out_(q_.size()),
        pages_(kPages) {
    std::iota(pages_.begin(), pages_.end(), 0);
    pool_ = Allocate(kPages * kPageBytes);
    auto* values = reinterpret_cast<Bf16*>(pool_.get());
    for (int64_t i = 0; i < kPages * kPageBytes / 2; ++i) values[i] = ToBf16(Draw());
    for (float& value : q_) value = Draw();
    int64_t workspace = 0;
    for (const AttentionVariant* candidate : candidates) {
      workspace =
          std::max(workspace, candidate->workspace_bytes(kPrefillQueries * kGroup, kHeadDim));
    }
    workspace_ = Allocate(workspace);
  }

  AttentionKernels Run() {
    return {candidates_[Fastest([this](const AttentionVariant& v) { return Prefill(v); })],
            candidates_[Fastest([this](const AttentionVariant& v) { return Decode(v); })]};
  }

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  using Memory = std::unique_ptr<std::byte, Free>;

  static Memory Allocate(int64_t bytes) {
    constexpr int64_t kAlignment = 4096;
    auto* memory = static_cast<std::byte*>(
        std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment));
    SWAA_CHECK(memory != nullptr) << "no memory for " << bytes << " bytes";
    return Memory(memory);
  }

  // Uniform in [-2, 2): zeros and denormals are faster or slower than real numbers.
  float Draw() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<float>(static_cast<int32_t>(state_ >> 32)) * 0x1p-30f;
  }

  template <typename Measure>
  size_t Fastest(const Measure& measure) {
    std::vector<double> best(candidates_.size(), std::numeric_limits<double>::infinity());
    for (int round = 0; round < kRounds; ++round) {
      for (size_t c = 0; c < candidates_.size(); ++c) {
        best[c] = std::min(best[c], measure(*candidates_[c]));
      }
    }
    return PreferredFastest(best);
  }

  AttentionTask Task(int32_t queries, int32_t pages) {
    AttentionTask task{};
    task.q = q_.data();
    task.q_stride = kGroup * kHeadDim;
    task.out = out_.data();
    task.out_stride = kGroup * kHeadDim;
    task.pages = pages_.data();
    task.pool = pool_.get();
    task.page_bytes = kPageBytes;
    task.key_offset = KeyBlockOffset(DataType::kBf16, kHeadDim, 0);
    task.value_offset = ValueBlockOffset(DataType::kBf16, kHeadDim, 1, 0);
    task.queries = queries;
    task.group = kGroup;
    task.kv_heads = 1;
    task.head_dim = kHeadDim;
    task.first_position = pages * kPageTokens - queries;
    task.window = kMaxSpan;
    task.visit_end = pages;
    task.scale_log2 = static_cast<float>(std::log2(std::exp(1.0)) / std::sqrt(kHeadDim));
    return task;
  }

  double Time(const AttentionVariant& variant, const AttentionTask& task) {
    const double begin = Now();
    variant.run(task, workspace_.get());
    return std::max(Now() - begin, 1e-9);
  }

  double Prefill(const AttentionVariant& variant) {
    return Time(variant, Task(kPrefillQueries, kPrefillPages));
  }

  // Decode meets pages that no cache has.
  double Decode(const AttentionVariant& variant) {
    for (int64_t byte = 0; byte < kPages * kPageBytes; byte += 64) _mm_clflush(pool_.get() + byte);
    _mm_mfence();
    return Time(variant, Task(1, kPages));
  }

  const std::vector<const AttentionVariant*>& candidates_;
  std::vector<float> q_;
  std::vector<float> out_;
  std::vector<int32_t> pages_;
  Memory pool_;
  Memory workspace_;
  uint64_t state_ = 1;
};

}  // namespace

std::vector<const AttentionVariant*> AttentionVariantsOf(InstructionSet set, DataType kv) {
  const bool f32 = kv == DataType::kF32;
  switch (set) {
    case InstructionSet::kGeneric:
      if (f32) return {&kGenericF32Pages};
      return {&kGenericBf16Pages[0], &kGenericBf16Pages[1]};
    case InstructionSet::kAvx2:
      if (f32) return {&kAvx2F32Pages};
      return {&kAvx2Bf16Pages[0], &kAvx2Bf16Pages[1]};
    case InstructionSet::kAvx512:
      if (f32) return {&kAvx512F32Pages};
      return {&kAvx512Bf16Pages[0], &kAvx512Bf16Pages[1]};
    case InstructionSet::kAvx512Bf16:
      if (f32) return {&kAvx512F32Pages};
      return {&kDotProductBf16Pages[0], &kDotProductBf16Pages[1]};
    case InstructionSet::kAmx:
      if (f32) return {&kAvx512F32Pages};
      return {&kAmxBf16Pages};
  }
  return {&kGenericF32Pages};
}

AttentionKernels DefaultAttentionKernels(InstructionSet set, DataType kv) {
  const AttentionVariant* variant = AttentionVariantsOf(set, kv).front();
  return {variant, variant};
}

std::vector<const AttentionVariant*> AttentionCandidates(InstructionSet set, bool named,
                                                         DataType kv) {
  std::vector<const AttentionVariant*> candidates = AttentionVariantsOf(set, kv);
  if (named || kv == DataType::kF32) return candidates;
  // Vectors of half the width never win.
  for (InstructionSet lower : {InstructionSet::kAvx512Bf16, InstructionSet::kAvx512}) {
    if (lower >= set) continue;
    for (const AttentionVariant* variant : AttentionVariantsOf(lower, kv)) {
      candidates.push_back(variant);
    }
  }
  return candidates;
}

size_t PreferredFastest(std::span<const double> seconds) {
  size_t chosen = 0;
  for (size_t i = 1; i < seconds.size(); ++i) {
    if (seconds[i] * kLead < seconds[chosen]) chosen = i;
  }
  return chosen;
}

AttentionKernels MeasuredAttentionKernels(InstructionSet set, bool named, DataType kv) {
  static std::mutex mutex;
  static auto* measured =
      new std::map<std::tuple<InstructionSet, bool, DataType>, AttentionKernels>;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto [found, inserted] = measured->try_emplace({set, named, kv});
  if (inserted) {
    const std::vector<const AttentionVariant*> candidates = AttentionCandidates(set, named, kv);
    found->second =
        candidates.size() == 1 ? DefaultAttentionKernels(set, kv) : Race(candidates).Run();
  }
  return found->second;
}

}  // namespace swaa::kernels::cpu
