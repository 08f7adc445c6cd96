// Products of the CPU backend: which form of a weight serves which row count.

#include "kernels/cpu/linear.h"

#include <algorithm>
#include <array>
#include <emmintrin.h>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <time.h>
#include <tuple>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/cpu/affine_weight.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/onednn_matmul.h"
#include "kernels/cpu/parallel_ranges.h"
#include "kernels/cpu/product_choice.h"
#include "kernels/cpu/skinny_affine_product.h"
#include "kernels/cpu/skinny_bf16_product.h"

namespace swaa::kernels::cpu {
namespace {

class CpuWeight : public Weight {
 public:
  // choice: of the weight's kind; outlives it.
  CpuWeight(std::unique_ptr<PackedWeight> packed, std::optional<AffineWeight> affine,
            std::shared_ptr<const ProductChoice> choice)
      : packed_(std::move(packed)), affine_(std::move(affine)), choice_(std::move(choice)) {}
  int64_t out_features() const override { return packed_->out_features(); }
  int64_t in_features() const override { return packed_->in_features(); }
  int64_t bytes() const override {
    return packed_->bytes() + (affine_.has_value() ? affine_->bytes : 0);
  }
  const PackedWeight& packed() const { return *packed_; }
  const std::optional<AffineWeight>& affine() const { return affine_; }
  const ProductChoice& choice() const { return *choice_; }

 private:
  std::unique_ptr<PackedWeight> packed_;
  std::optional<AffineWeight> affine_;
  std::shared_ptr<const ProductChoice> choice_;  // of its kind, which may yet be measured
};

// Weights of one format share their choice.
struct KindChoice {
  std::shared_ptr<ProductChoice> choice = std::make_shared<ProductChoice>();
  bool measured = false;
};

// Of all threads of this process: it stands still while other processes have their cores.
double ProcessorSeconds() {
  timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

constexpr int64_t kMinMeasuredElements = int64_t{1} << 20;
constexpr int64_t kMaxMeasuredElements = int64_t{1} << 25;
constexpr int kMeasuredRounds = 3;

SkinnyOutput OutputOf(const LinearParams& p) {
  return {.bias = p.bias,
          .data = p.out,
          .out_features = p.weight->out_features(),
          .bf16 = p.out_type == DataType::kBf16};
}

class CpuLinearImpl : public CpuLinear {
 public:
  CpuLinearImpl(DataType type, bool skinny, int threads)
      : type_(type),
        skinny_(skinny && type == DataType::kBf16),
        threads_(threads),
        matmul_(OneDnnMatmul::Create(type)) {}

  absl::StatusOr<std::unique_ptr<Weight>> Pack(int64_t out_features, int64_t in_features,
                                               const RowReader& read_rows) override {
    PrepareOpenMpThreads(threads_);
    SWAA_ASSIGN_OR_RETURN(auto packed, matmul_->Pack(out_features, in_features, read_rows));
    std::optional<AffineWeight> affine;
    if (skinny_) {
      SWAA_ASSIGN_OR_RETURN(affine,
                            PackAffineWeight(out_features, in_features, read_rows, affine_memory_));
    }
    const AffineFormat format = affine.has_value() ? affine->format : AffineFormat{};
    KindChoice& kind = kinds_[{format.level_bits, format.group_inputs, format.f16}];
    auto weight = std::make_unique<CpuWeight>(std::move(packed), std::move(affine), kind.choice);
    MeasureChoice(*weight, &kind);
    return weight;
  }

  void Run(const LinearParams& p) override {
    if (p.rows == 0) return;
    RunAs(p, FormFor(*p.weight, p.rows));
  }

  ProductForm FormFor(const Weight& any_weight, int64_t rows) const override {
    const auto& weight = static_cast<const CpuWeight&>(any_weight);
    const ProductChoice& choice = weight.choice();
    if (rows <= choice.affine_rows && Has(weight, ProductForm::kAffine)) {
      return ProductForm::kAffine;
    }
    if (rows <= choice.bf16_rows && Has(weight, ProductForm::kBf16)) return ProductForm::kBf16;
    return ProductForm::kOneDnn;
  }

  void RunAs(const LinearParams& p, ProductForm form) override {
    PrepareOpenMpThreads(threads_);
    const auto& weight = static_cast<const CpuWeight&>(*p.weight);
    switch (form) {
      case ProductForm::kAffine:
        return RunSkinnyAffine(p, *weight.affine());
      case ProductForm::kBf16:
        return RunSkinnyBf16(p, weight.packed());
      case ProductForm::kOneDnn:
        LinearParams params = p;
        params.weight = &weight.packed();
        return matmul_->Run(params, PaddedRows(p.rows));
    }
  }

  int64_t MaxBytes(int64_t out_features, int64_t in_features) const override {
    const int64_t elements = (out_features + 63) / 64 * 64 * ((in_features + 31) / 32 * 32);
    // Beside the packed matrix, levels in 8 bits with minimum and step of each 32 inputs.
    return skinny_ ? elements * 2 + elements * 5 / 4 : elements * SizeOf(type_);
  }

 private:
  bool Has(const CpuWeight& weight, ProductForm form) const {
    switch (form) {
      case ProductForm::kAffine:
        return weight.affine().has_value();
      case ProductForm::kBf16:
        return skinny_ && weight.packed().layout().column_block > 0;
      case ProductForm::kOneDnn:
        return true;
    }
    return false;
  }

  // Measures the kind of this weight, once: by the first one that is neither small, so that waking
  // threads would count too much, nor so large that it would take long.
  void MeasureChoice(const CpuWeight& weight, KindChoice* kind) {
    const int64_t elements = weight.in_features() * weight.out_features();
    if (kind->measured || elements < kMinMeasuredElements || elements > kMaxMeasuredElements) {
      return;
    }
    kind->measured = true;
    if (!Has(weight, ProductForm::kAffine) && !Has(weight, ProductForm::kBf16)) return;
    std::vector<Bf16> x(kMaxSkinnyRows * weight.in_features());
    for (size_t i = 0; i < x.size(); ++i) x[i] = ToBf16(static_cast<float>(i * 7919 % 201) - 99.5f);
    std::vector<float> out(kMaxSkinnyRows * weight.out_features());
    std::array<FormSeconds, kProductForms> seconds;
    for (FormSeconds& form : seconds) form.fill(std::numeric_limits<double>::infinity());
    for (int round = 0; round <= kMeasuredRounds; ++round) {
      for (size_t r = 0; r < kMeasuredRows.size(); ++r) {
        const LinearParams p{
            .weight = &weight, .x = x.data(), .out = out.data(), .rows = kMeasuredRows[r]};
        for (int f = 0; f < kProductForms; ++f) {
          const auto form = static_cast<ProductForm>(f);
          if (!Has(weight, form)) continue;
          const double once = SecondsOf(p, form);
          // The first round makes primitives.
          if (round > 0) seconds[f][r] = std::min(seconds[f][r], once);
        }
      }
    }
    *kind->choice = ChooseForms(seconds);
  }

  // Of one product whose weight is in no cache, as in a model that is larger than they are.
  double SecondsOf(const LinearParams& p, ProductForm form) {
    const auto& weight = static_cast<const CpuWeight&>(*p.weight);
    if (form == ProductForm::kAffine) {
      Evict(weight.affine()->records.get(), weight.affine()->bytes);
    } else {
      Evict(weight.packed().data(), weight.packed().bytes());
    }
    const double begin = ProcessorSeconds();
    RunAs(p, form);
    return ProcessorSeconds() - begin;
  }

  void Evict(const void* memory, int64_t bytes) {
    const char* lines = static_cast<const char*>(memory);
#pragma omp parallel for num_threads(threads_)
    for (int64_t byte = 0; byte < bytes; byte += 64) _mm_clflush(lines + byte);
    _mm_mfence();
  }

  void RunSkinnyAffine(const LinearParams& p, const AffineWeight& affine) {
    const int64_t in = p.weight->in_features(), out = p.weight->out_features();
    const int64_t pairs = affine.groups * affine.format.group_inputs / 2;
    input_pairs_.resize(p.rows * pairs);
    group_sums_.resize(p.rows * affine.groups);
    std::array<SkinnyAffineProduct, kMaxSkinnyRows / kAffineRows> products;
    int64_t count = 0;
    // Whole blocks and a rest: it finds the columns in the cache that the blocks brought there.
    for (int64_t row = 0; row < p.rows; row += kAffineRows, ++count) {
      const int64_t rows = std::min(kAffineRows, p.rows - row);
      int32_t* x = input_pairs_.data() + row * pairs;
      float* x_sums = group_sums_.data() + row * affine.groups;
      PrepareActivations(affine.format, static_cast<const Bf16*>(p.x) + row * in, rows, in, x,
                         x_sums);
      products[count] = {.format = affine.format,
                         .records = affine.records.get(),
                         .groups = affine.groups,
                         .x = x,
                         .x_sums = x_sums,
                         .rows = rows,
                         .out = OutputOf(p)};
      products[count].out.data = static_cast<std::byte*>(p.out) + row * out * SizeOf(p.out_type);
    }
    ForColumns(p, [&](int64_t first, int64_t last) {
      for (int64_t group = first; group < last; ++group) {
        for (int64_t b = 0; b < count; ++b)
          ComputeSkinnyAffineProduct(products[b], group, group + 1);
      }
    });
  }

  void RunSkinnyBf16(const LinearParams& p, const PackedWeight& weight) {
    const int64_t in = weight.in_features(), out = weight.out_features();
    const int64_t pairs = (in + 1) / 2;
    input_pairs_.resize(p.rows * pairs);
    static_assert(kMaxSkinnyRows <= kBf16Rows * kMaxBf16Products);
    std::array<SkinnyBf16Product, kMaxBf16Products> products;
    // Of like size.
    const int64_t count = (p.rows + kBf16Rows - 1) / kBf16Rows;
    for (int64_t b = 0; b < count; ++b) {
      const int64_t row = p.rows * b / count, rows = p.rows * (b + 1) / count - row;
      int32_t* x = input_pairs_.data() + row * pairs;
      PrepareActivations(static_cast<const Bf16*>(p.x) + row * in, rows, in, x);
      products[b] = {.weight = static_cast<const Bf16*>(weight.data()),
                     .column_block = weight.layout().column_block,
                     .block_stride = weight.layout().block_stride,
                     .in_pairs = pairs,
                     .x = x,
                     .rows = rows,
                     .out = OutputOf(p)};
      products[b].out.data = static_cast<std::byte*>(p.out) + row * out * SizeOf(p.out_type);
    }
    ForColumns(p, [&](int64_t first, int64_t last) {
      ComputeSkinnyBf16Products(products.data(), count, first, last);
    });
  }

  // body(first, last) over groups of 16 outputs, in whole column blocks.
  template <typename Body>
  void ForColumns(const LinearParams& p, const Body& body) {
    constexpr int64_t kBlockGroups = 4;  // of the largest column block
    ForChunks(threads_, (p.weight->out_features() + 15) / 16, kBlockGroups,
              16 * p.weight->in_features(), body);
  }

  DataType type_;
  bool skinny_;
  int threads_;
  std::unique_ptr<OneDnnMatmul> matmul_;
  SliceAllocator affine_memory_;
  std::map<std::tuple<int, int, bool>, KindChoice> kinds_;  // by level bits, group inputs, f16
  std::vector<int32_t> input_pairs_;                        // PrepareActivations
  std::vector<float> group_sums_;
};

}  // namespace

std::unique_ptr<CpuLinear> CpuLinear::Create(DataType type, bool skinny, int threads) {
  return std::make_unique<CpuLinearImpl>(type, skinny, threads);
}

int64_t CpuLinear::PaddedRows(int64_t rows) { return PaddedProductRows(rows); }

}  // namespace swaa::kernels::cpu
