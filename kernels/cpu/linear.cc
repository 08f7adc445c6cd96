// Products of the CPU backend: which form of a weight serves which row count.

#include "kernels/cpu/linear.h"

#include <algorithm>
#include <bit>
#include <optional>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/cpu/affine_weight.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/onednn_matmul.h"
#include "kernels/cpu/parallel_ranges.h"
#include "kernels/cpu/skinny_affine_product.h"
#include "kernels/cpu/skinny_bf16_product.h"

namespace swaa::kernels::cpu {
namespace {

class CpuWeight : public Weight {
 public:
  CpuWeight(std::unique_ptr<PackedWeight> packed, std::optional<AffineWeight> affine)
      : packed_(std::move(packed)), affine_(std::move(affine)) {}
  int64_t out_features() const override { return packed_->out_features(); }
  int64_t in_features() const override { return packed_->in_features(); }
  int64_t bytes() const override {
    return packed_->bytes() + (affine_.has_value() ? affine_->bytes : 0);
  }
  const PackedWeight& packed() const { return *packed_; }
  const std::optional<AffineWeight>& affine() const { return affine_; }

 private:
  std::unique_ptr<PackedWeight> packed_;
  std::optional<AffineWeight> affine_;
};

SkinnyOutput OutputOf(const LinearParams& p) {
  return {.bias = p.bias,
          .data = p.out,
          .out_features = p.weight->out_features(),
          .bf16 = p.out_type == DataType::kBf16,
          .accumulate = p.accumulate};
}

class CpuLinearImpl : public CpuLinear {
 public:
  CpuLinearImpl(DataType type, bool skinny, int threads)
      : skinny_(skinny && type == DataType::kBf16),
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
    return std::make_unique<CpuWeight>(std::move(packed), std::move(affine));
  }

  void Run(const LinearParams& p) override {
    if (p.rows == 0) return;
    SWAA_CHECK(!p.accumulate || p.out_type == DataType::kF32);
    PrepareOpenMpThreads(threads_);
    const auto& weight = static_cast<const CpuWeight&>(*p.weight);
    if (weight.affine().has_value() && p.rows <= kMaxSkinnyAffineRows) {
      RunSkinnyAffine(p, *weight.affine());
    } else if (skinny_ && weight.packed().layout().column_block > 0 &&
               p.rows <= kMaxSkinnyBf16Rows) {
      RunSkinnyBf16(p, weight.packed());
    } else {
      LinearParams params = p;
      params.weight = &weight.packed();
      matmul_->Run(params, PaddedRows(p.rows));
    }
  }

 private:
  void RunSkinnyAffine(const LinearParams& p, const AffineWeight& affine) {
    const int64_t in = p.weight->in_features();
    padded_rows_.resize(p.rows * affine.groups * affine.format.group_inputs);
    group_sums_.resize(p.rows * affine.groups);
    PrepareActivations(affine.format, static_cast<const Bf16*>(p.x), p.rows, in,
                       padded_rows_.data(), group_sums_.data());
    const SkinnyAffineProduct product{.format = affine.format,
                                      .records = affine.records.get(),
                                      .groups = affine.groups,
                                      .x = padded_rows_.data(),
                                      .x_sums = group_sums_.data(),
                                      .rows = p.rows,
                                      .out = OutputOf(p)};
    ForColumns(
        p, [&](int64_t first, int64_t last) { ComputeSkinnyAffineProduct(product, first, last); });
  }

  void RunSkinnyBf16(const LinearParams& p, const PackedWeight& weight) {
    const int64_t in = weight.in_features();
    SkinnyBf16Product product{.weight = static_cast<const Bf16*>(weight.data()),
                              .column_block = weight.layout().column_block,
                              .block_stride = weight.layout().block_stride,
                              .in_pairs = (in + 1) / 2,
                              .x = static_cast<const Bf16*>(p.x),
                              .x_stride = in,
                              .rows = p.rows,
                              .out = OutputOf(p)};
    if (in % 2 != 0) {
      even_rows_.assign(p.rows * (in + 1), Bf16{0});
      for (int64_t r = 0; r < p.rows; ++r) {
        std::copy_n(product.x + r * in, in, even_rows_.data() + r * (in + 1));
      }
      product.x = even_rows_.data();
      product.x_stride = in + 1;
    }
    ForColumns(
        p, [&](int64_t first, int64_t last) { ComputeSkinnyBf16Product(product, first, last); });
  }

  // body(first, last) over groups of 16 outputs.
  template <typename Body>
  void ForColumns(const LinearParams& p, const Body& body) {
    ForRanges(threads_, (p.weight->out_features() + 15) / 16, 16 * p.weight->in_features(), body);
  }

  bool skinny_;
  int threads_;
  std::unique_ptr<OneDnnMatmul> matmul_;
  SliceAllocator affine_memory_;
  std::vector<Bf16> even_rows_;    // rows of odd length, padded
  std::vector<Bf16> padded_rows_;  // PrepareActivations
  std::vector<float> group_sums_;
};

}  // namespace

std::unique_ptr<CpuLinear> CpuLinear::Create(DataType type, bool skinny, int threads) {
  return std::make_unique<CpuLinearImpl>(type, skinny, threads);
}

// Few values, so that few primitives are made: powers of two up to 16, then steps of growing size.
int64_t CpuLinear::PaddedRows(int64_t rows) {
  if (rows <= 16) return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(rows)));
  const int64_t block = rows <= 64 ? 16 : rows <= 512 ? 32 : 128;
  return (rows + block - 1) / block * block;
}

}  // namespace swaa::kernels::cpu
