// Products of the CPU backend: which form of a weight serves which row count.

#include "kernels/cpu/linear.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <emmintrin.h>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <time.h>
#include <tuple>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/cpu/affine_weight.h"
#include "kernels/cpu/cpu_weight.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/onednn_matmul.h"
#include "kernels/cpu/product_choice.h"
#include "kernels/cpu/skinny_products.h"
#include "kernels/cpu/threads.h"

namespace swaa::kernels::cpu {
namespace {

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
// Whatever else the machine does may disturb some milliseconds in a row: a weight is measured for
// longer than that, and a large one often enough.
constexpr int kMeasuredRounds = 5;
constexpr std::chrono::milliseconds kMeasuredTime{30};

class CpuLinearImpl : public CpuLinear {
 public:
  CpuLinearImpl(DataType type, bool skinny, int threads)
      : type_(type),
        has_skinny_(skinny && type == DataType::kBf16),
        threads_(threads),
        matmul_(OneDnnMatmul::Create(type)),
        skinny_(threads) {}

  absl::StatusOr<std::unique_ptr<Weight>> Pack(int64_t out_features, int64_t in_features,
                                               const RowReader& read_rows) override {
    PrepareOpenMpThreads(threads_);
    SWAA_ASSIGN_OR_RETURN(auto packed, matmul_->Pack(out_features, in_features, read_rows));
    std::optional<AffineWeight> affine;
    if (has_skinny_) {
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

  void RunGrouped(std::span<const LinearParams> products) override {
    few_rows_.clear();
    for (const LinearParams& p : products) {
      if (p.rows == 0) continue;
      const ProductForm form = FormFor(*p.weight, p.rows);
      if (form == ProductForm::kOneDnn) {
        RunAs(p, form);
      } else {
        few_rows_.push_back({p, form});
      }
    }
    // Last: these write no row but their own.
    skinny_.Run(few_rows_);
  }

  void RunAs(const LinearParams& p, ProductForm form) override {
    if (form != ProductForm::kOneDnn) {
      const SkinnyProduct product{p, form};
      return skinny_.Run({&product, 1});
    }
    PrepareOpenMpThreads(threads_);
    LinearParams params = p;
    params.weight = &static_cast<const CpuWeight&>(*p.weight).packed();
    matmul_->Run(params, PaddedRows(p.rows));
  }

  int64_t MaxBytes(int64_t out_features, int64_t in_features) const override {
    const int64_t elements = (out_features + 63) / 64 * 64 * ((in_features + 31) / 32 * 32);
    // Beside the packed matrix, levels in 8 bits with minimum and step of each 32 inputs.
    return has_skinny_ ? elements * 2 + elements * 5 / 4 : elements * SizeOf(type_);
  }

 private:
  bool Has(const CpuWeight& weight, ProductForm form) const {
    switch (form) {
      case ProductForm::kAffine:
        return weight.affine().has_value();
      case ProductForm::kBf16:
        return has_skinny_ && weight.packed().layout().column_block > 0;
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
    const auto until = std::chrono::steady_clock::now() + kMeasuredTime;
    for (int round = 0; round <= kMeasuredRounds || std::chrono::steady_clock::now() < until;
         ++round) {
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

  DataType type_;
  bool has_skinny_;
  int threads_;
  std::unique_ptr<OneDnnMatmul> matmul_;
  SliceAllocator affine_memory_;
  std::map<std::tuple<int, int, bool>, KindChoice> kinds_;  // by level bits, group inputs, f16
  SkinnyProducts skinny_;
  std::vector<SkinnyProduct> few_rows_;  // of RunGrouped
};

}  // namespace

std::unique_ptr<CpuLinear> CpuLinear::Create(DataType type, bool skinny, int threads) {
  return std::make_unique<CpuLinearImpl>(type, skinny, threads);
}

int64_t CpuLinear::PaddedRows(int64_t rows) { return PaddedProductRows(rows); }

}  // namespace swaa::kernels::cpu
