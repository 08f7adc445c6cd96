// Products of adapters on the CPU.

#include "kernels/cpu/lora.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <omp.h>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/parallel_ranges.h"
#include "kernels/cpu/region_errors.h"

namespace swaa::kernels::cpu {
namespace {

// Fewer multiplications than these are not worth waking the other threads for.
constexpr int64_t kSerialMultiplications = int64_t{1} << 16;
// Stays free beside an adapter.
constexpr int64_t kReserveBytes = int64_t{64} << 20;

int64_t Blocks(int64_t count, int64_t block) { return (count + block - 1) / block; }

// Matrices in the order in which they are read. Ranks of all parts are counted through.
class CpuLoraWeight : public LoraWeight {
 public:
  // kLoraColumns outputs, or what is left of them, of one part.
  struct ColumnBlock {
    int64_t first_output;
    int64_t outputs;
    int64_t first_rank;
    int64_t rank;
    const std::byte* up;  // [rank, kLoraColumns]
  };

  CpuLoraWeight(const LoraSpec& spec, DataType type, MemoryCounter* counter)
      : in_features_(spec.in_features), type_(type), counter_(counter) {
    for (const LoraPart& part : spec.parts) {
      ranks_ += part.rank;
      up_elements_ += Blocks(part.outputs, kLoraColumns) * kLoraColumns * part.rank;
    }
  }
  ~CpuLoraWeight() override {
    if (memory_ != nullptr) counter_->Add(MemoryKind::kWeights, -bytes());
  }

  int64_t bytes() const override {
    return (rank_blocks() * kLoraRanks * in_features_ + up_elements_) * SizeOf(type_);
  }
  int64_t in_features() const { return in_features_; }
  int64_t ranks() const { return ranks_; }
  int64_t rank_blocks() const { return Blocks(ranks_, kLoraRanks); }
  bool bf16() const { return type_ == DataType::kBf16; }
  // [in_features, kLoraRanks]
  const std::byte* Down(int64_t block) const {
    return memory_.get() + block * in_features_ * kLoraRanks * SizeOf(type_);
  }
  const std::vector<ColumnBlock>& columns() const { return columns_; }

  absl::Status Fill(const LoraSpec& spec, SliceAllocator* allocator) {
    SWAA_ASSIGN_OR_RETURN(memory_, allocator->Allocate(bytes()));
    counter_->Add(MemoryKind::kWeights, bytes());
    int64_t up = rank_blocks() * kLoraRanks * in_features_;
    int64_t first_rank = 0;
    for (const LoraPart& part : spec.parts) {
      FillDown(part, first_rank);
      up = FillUp(part, first_rank, up);
      first_rank += part.rank;
    }
    return absl::OkStatus();
  }

 private:
  void Put(int64_t element, float value) {
    if (bf16()) {
      reinterpret_cast<Bf16*>(memory_.get())[element] = ToBf16(value);
    } else {
      reinterpret_cast<float*>(memory_.get())[element] = value;
    }
  }

  void FillDown(const LoraPart& part, int64_t first_rank) {
    std::vector<float> row(in_features_);
    for (int64_t r = 0; r < part.rank; ++r) {
      part.down(r, 1, row.data());
      const int64_t block = (first_rank + r) / kLoraRanks, inside = (first_rank + r) % kLoraRanks;
      for (int64_t i = 0; i < in_features_; ++i) {
        Put((block * in_features_ + i) * kLoraRanks + inside, row[i]);
      }
    }
  }

  // From element `up` on; returns the end.
  int64_t FillUp(const LoraPart& part, int64_t first_rank, int64_t up) {
    std::vector<float> row(part.rank);
    for (int64_t o = 0; o < part.outputs; ++o) {
      part.up(o, 1, row.data());
      const int64_t inside = o % kLoraColumns;
      if (inside == 0) {
        columns_.push_back({.first_output = part.first_output + o,
                            .outputs = std::min(kLoraColumns, part.outputs - o),
                            .first_rank = first_rank,
                            .rank = part.rank,
                            .up = memory_.get() + up * SizeOf(type_)});
        up += kLoraColumns * part.rank;
      }
      const int64_t begin = up - kLoraColumns * part.rank;
      for (int64_t r = 0; r < part.rank; ++r) Put(begin + r * kLoraColumns + inside, row[r]);
    }
    return up;
  }

  const int64_t in_features_;
  const DataType type_;
  MemoryCounter* const counter_;
  int64_t ranks_ = 0;
  int64_t up_elements_ = 0;
  std::shared_ptr<std::byte> memory_;  // down [rank blocks, in, kLoraRanks], then up
  std::vector<ColumnBlock> columns_;
};

const CpuLoraWeight& Cast(const LoraWeight* weight) {
  return static_cast<const CpuLoraWeight&>(*weight);
}

}  // namespace

absl::StatusOr<std::vector<std::unique_ptr<LoraWeight>>> PackCpuLora(
    std::span<const LoraSpec> weights, DataType type, MemoryCounter* counter) {
  std::vector<std::unique_ptr<LoraWeight>> packed;
  int64_t bytes = 0;
  for (const LoraSpec& spec : weights) {
    packed.push_back(std::make_unique<CpuLoraWeight>(spec, type, counter));
    bytes += packed.back()->bytes();
  }
  const int64_t available = AvailableMemoryBytes() - kReserveBytes;
  if (bytes > available) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "adapter: ", bytes, " bytes of weights, and the machine has ",
        std::max<int64_t>(0, available), " left; unload another adapter, or lower kv_cache_bytes"));
  }
  SliceAllocator allocator;
  for (size_t i = 0; i < packed.size(); ++i) {
    SWAA_RETURN_IF_ERROR(static_cast<CpuLoraWeight&>(*packed[i]).Fill(weights[i], &allocator));
  }
  return packed;
}

struct CpuLora::Call {
  const AdapterRows& rows;
  std::span<const LoraWeight* const> adapters;
  const std::byte* x;
  int64_t in_features;
  std::byte* out;
  DataType out_type;
  int64_t out_features;
};

void CpuLora::Plan(const Call& call) {
  down_items_.clear();
  up_items_.clear();
  sums_stride_ = multiplications_ = 0;
  for (const AdapterRows::Group& group : call.rows.groups) {
    const auto* weight = static_cast<const CpuLoraWeight*>(call.adapters[group.adapter]);
    if (weight == nullptr) continue;
    SWAA_CHECK_EQ(weight->in_features(), call.in_features);
    sums_stride_ = std::max(sums_stride_, weight->rank_blocks() * kLoraRanks);
    for (int64_t row = 0; row < group.count; row += kLoraRows) {
      down_items_.push_back(
          {weight, group.first + row, std::min<int64_t>(kLoraRows, group.count - row)});
    }
    multiplications_ += group.count * weight->ranks() * call.in_features;
    for (size_t c = 0; c < weight->columns().size(); ++c) {
      const CpuLoraWeight::ColumnBlock& columns = weight->columns()[c];
      up_items_.push_back({weight, c, group.first, group.count});
      multiplications_ += group.count * columns.rank * columns.outputs;
    }
  }
  sums_.resize(std::max(sums_.size(), call.rows.rows.size() * sums_stride_));
}

void CpuLora::ComputeDown(const Call& call, const DownItem& item, int thread) {
  const CpuLoraWeight& weight = Cast(item.weight);
  std::array<const float*, kLoraRows> x;
  std::vector<float>& converted = inputs_[thread];
  const bool bf16 = activations_ == DataType::kBf16;
  if (bf16) converted.resize(std::max<size_t>(converted.size(), kLoraRows * call.in_features));
  for (int64_t r = 0; r < item.count; ++r) {
    const std::byte* row =
        call.x + call.rows.rows[item.first + r] * call.in_features * SizeOf(activations_);
    x[r] = reinterpret_cast<const float*>(row);
    if (!bf16) continue;
    float* values = converted.data() + r * call.in_features;
    kernels_.bf16_to_float(row, call.in_features, values);
    x[r] = values;
  }
  for (int64_t block = 0; block < weight.rank_blocks(); ++block) {
    kernels_.lora_down(weight.Down(block), weight.bf16(), x.data(), call.in_features, item.count,
                       sums_.data() + item.first * sums_stride_ + block * kLoraRanks, sums_stride_);
  }
}

void CpuLora::ComputeUp(const Call& call, const UpItem& item) {
  const CpuLoraWeight& weight = Cast(item.weight);
  const CpuLoraWeight::ColumnBlock& columns = weight.columns()[item.columns];
  for (int64_t done = 0; done < item.count; done += kLoraRows) {
    const int64_t first = item.first + done, rows = std::min(kLoraRows, item.count - done);
    std::array<void*, kLoraRows> outs;
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t element = call.rows.rows[first + r] * call.out_features + columns.first_output;
      outs[r] = call.out + element * SizeOf(call.out_type);
    }
    kernels_.lora_up(columns.up, weight.bf16(),
                     sums_.data() + first * sums_stride_ + columns.first_rank, sums_stride_,
                     columns.rank, outs.data(), rows, columns.outputs,
                     call.out_type == DataType::kBf16);
  }
}

void CpuLora::Add(const AdapterRows& rows, std::span<const LoraWeight* const> adapters,
                  const void* x, int64_t in_features, void* out, DataType out_type,
                  int64_t out_features) {
  const Call call{.rows = rows,
                  .adapters = adapters,
                  .x = static_cast<const std::byte*>(x),
                  .in_features = in_features,
                  .out = static_cast<std::byte*>(out),
                  .out_type = out_type,
                  .out_features = out_features};
  Plan(call);
  if (down_items_.empty()) return;
  PrepareOpenMpThreads(threads_);
  if (threads_ == 1 || multiplications_ < kSerialMultiplications) {
    for (const DownItem& item : down_items_) ComputeDown(call, item, 0);
    for (const UpItem& item : up_items_) ComputeUp(call, item);
    return;
  }
  // Handed out to whoever is free; blocks of columns are many and small.
  constexpr size_t kColumnBlocks = 4;
  std::atomic<size_t> next_down = 0, next_up = 0;
  RegionErrors errors;
#pragma omp parallel num_threads(threads_)
  {
    const int thread = omp_get_thread_num();
    errors.Run([&] {
      for (size_t i = next_down++; i < down_items_.size(); i = next_down++) {
        ComputeDown(call, down_items_[i], thread);
      }
    });
#pragma omp barrier
    for (size_t i = next_up.fetch_add(kColumnBlocks); i < up_items_.size();
         i = next_up.fetch_add(kColumnBlocks)) {
      const size_t end = std::min(i + kColumnBlocks, up_items_.size());
      for (size_t item = i; item < end; ++item) ComputeUp(call, up_items_[item]);
    }
  }
  errors.Rethrow();
}

}  // namespace swaa::kernels::cpu
