// Products of few rows, cut into blocks of columns for all threads.

#include "kernels/cpu/skinny_products.h"

#include <algorithm>
#include <cstddef>

#include "kernels/cpu/cpu_weight.h"
#include "kernels/cpu/parallel_ranges.h"

namespace swaa::kernels::cpu {
namespace {

// Groups of 16 outputs in a column block: as many as the kernels compute at once.
constexpr int64_t BlockGroupsOf(ProductForm form) { return form == ProductForm::kBf16 ? 4 : 1; }

SkinnyOutput OutputOf(const LinearParams& p, int64_t row) {
  const int64_t out = p.weight->out_features();
  return {.bias = p.bias,
          .data = static_cast<std::byte*>(p.out) + row * out * SizeOf(p.out_type),
          .out_features = out,
          .bf16 = p.out_type == DataType::kBf16};
}

// What PrepareActivations writes for a row of a product.
int64_t PairsOf(const SkinnyProduct& product) {
  const auto& weight = static_cast<const CpuWeight&>(*product.params.weight);
  if (product.form == ProductForm::kBf16) return (weight.in_features() + 1) / 2;
  return weight.affine()->groups * weight.affine()->format.group_inputs / 2;
}
int64_t SumsOf(const SkinnyProduct& product) {
  const auto& weight = static_cast<const CpuWeight&>(*product.params.weight);
  return product.form == ProductForm::kBf16 ? 0 : weight.affine()->groups;
}

}  // namespace

void SkinnyProducts::Run(std::span<const SkinnyProduct> products) {
  if (products.empty()) return;
  PrepareOpenMpThreads(threads_);
  int64_t pairs = 0, sums = 0;
  for (const SkinnyProduct& product : products) {
    pairs += product.params.rows * PairsOf(product);
    sums += product.params.rows * SumsOf(product);
  }
  pairs_.resize(pairs);
  sums_.resize(sums);
  prepared_.resize(products.size());
  Room room{pairs_.data(), sums_.data()};
  int64_t blocks = 0;
  for (size_t i = 0; i < products.size(); ++i) {
    const LinearParams& p = products[i].params;
    Prepared& prepared = prepared_[i];
    prepared.form = products[i].form;
    if (prepared.form == ProductForm::kAffine) {
      PrepareAffine(p, room, &prepared);
    } else {
      PrepareBf16(p, room, &prepared);
    }
    room.pairs += p.rows * PairsOf(products[i]);
    room.sums += p.rows * SumsOf(products[i]);
    prepared.column_groups = (p.weight->out_features() + 15) / 16;
    prepared.first_block = blocks;
    prepared.block_groups = BlockGroupsOf(prepared.form);
    blocks += (prepared.column_groups + prepared.block_groups - 1) / prepared.block_groups;
  }
  const int64_t block_elements =
      prepared_[0].block_groups * 16 * products[0].params.weight->in_features();
  ForChunks(threads_, blocks, 1, block_elements,
            [&](int64_t first, int64_t last) { Compute(first, last); });
}

void SkinnyProducts::Compute(int64_t first, int64_t last) const {
  auto product = std::upper_bound(
      prepared_.begin(), prepared_.end(), first,
      [](int64_t block, const Prepared& prepared) { return block < prepared.first_block; });
  for (--product; product != prepared_.end() && product->first_block < last; ++product) {
    const int64_t groups = product->block_groups;
    const int64_t begin = std::max(first - product->first_block, int64_t{0}) * groups;
    const int64_t end = std::min((last - product->first_block) * groups, product->column_groups);
    if (product->form == ProductForm::kBf16) {
      ComputeSkinnyBf16Products(product->bf16.data(), product->count, begin, end);
    } else {
      ComputeSkinnyAffineProducts(product->affine.data(), product->count, begin, end);
    }
  }
}

// Blocks of like size: levels are unpacked for each, which a block of few rows would not hide.
void SkinnyProducts::PrepareAffine(const LinearParams& p, Room room, Prepared* prepared) {
  const AffineWeight& affine = *static_cast<const CpuWeight&>(*p.weight).affine();
  const int64_t in = p.weight->in_features();
  const int64_t pairs = affine.groups * affine.format.group_inputs / 2;
  static_assert(kMaxSkinnyRows <= kAffineRows * kMaxAffineProducts);
  prepared->count = (p.rows + kAffineRows - 1) / kAffineRows;
  for (int64_t b = 0; b < prepared->count; ++b) {
    const int64_t row = p.rows * b / prepared->count;
    const int64_t rows = p.rows * (b + 1) / prepared->count - row;
    int32_t* x = room.pairs + row * pairs;
    float* x_sums = room.sums + row * affine.groups;
    PrepareActivations(affine.format, static_cast<const Bf16*>(p.x) + row * in, rows, in, x,
                       x_sums);
    prepared->affine[b] = {.format = affine.format,
                           .records = affine.records.get(),
                           .groups = affine.groups,
                           .x = x,
                           .x_sums = x_sums,
                           .rows = rows,
                           .out = OutputOf(p, row)};
  }
}

// Blocks of like size.
void SkinnyProducts::PrepareBf16(const LinearParams& p, Room room, Prepared* prepared) {
  const PackedWeight& weight = static_cast<const CpuWeight&>(*p.weight).packed();
  const int64_t in = weight.in_features(), pairs = (in + 1) / 2;
  static_assert(kMaxSkinnyRows <= kBf16Rows * kMaxBf16Products);
  prepared->count = (p.rows + kBf16Rows - 1) / kBf16Rows;
  for (int64_t b = 0; b < prepared->count; ++b) {
    const int64_t row = p.rows * b / prepared->count;
    const int64_t rows = p.rows * (b + 1) / prepared->count - row;
    int32_t* x = room.pairs + row * pairs;
    PrepareActivations(static_cast<const Bf16*>(p.x) + row * in, rows, in, x);
    prepared->bf16[b] = {.weight = static_cast<const Bf16*>(weight.data()),
                         .column_block = weight.layout().column_block,
                         .block_stride = weight.layout().block_stride,
                         .in_pairs = pairs,
                         .x = x,
                         .rows = rows,
                         .out = OutputOf(p, row)};
  }
}

}  // namespace swaa::kernels::cpu
