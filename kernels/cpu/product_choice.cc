// Kernels, CPU backend: from measured times to the form for each row count.

#include "kernels/cpu/product_choice.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace swaa::kernels::cpu {

int64_t PaddedProductRows(int64_t rows) {
  constexpr struct {
    int64_t up_to;
    int64_t multiple;
  } kSteps[] = {{2, 1}, {32, 4}, {64, 16}, {512, 32}};
  int64_t multiple = 128;
  for (const auto& step : kSteps) {
    if (rows <= step.up_to) {
      multiple = step.multiple;
      break;
    }
  }
  return (rows + multiple - 1) / multiple * multiple;
}

double SecondsFor(ProductForm form, const FormSeconds& seconds, int64_t rows) {
  const int64_t computed = form == ProductForm::kOneDnn ? PaddedProductRows(rows) : rows;
  if (seconds[0] == std::numeric_limits<double>::infinity()) return seconds[0];
  const auto next = std::lower_bound(kMeasuredRows.begin(), kMeasuredRows.end(), computed);
  const auto high = std::min<size_t>(next - kMeasuredRows.begin(), kMeasuredRows.size() - 1);
  if (kMeasuredRows[high] == computed || high == 0) return seconds[high];
  const size_t low = high - 1;
  const double part = static_cast<double>(computed - kMeasuredRows[low]) /
                      static_cast<double>(kMeasuredRows[high] - kMeasuredRows[low]);
  return seconds[low] + part * (seconds[high] - seconds[low]);
}

ProductChoice ChooseForms(const std::array<FormSeconds, kProductForms>& seconds) {
  constexpr double kNoise = 1.05;
  std::array<std::array<double, kProductForms>, kMaxSkinnyRows + 1> loss{};  // [rows][form]
  for (int64_t rows = 1; rows <= kMaxSkinnyRows; ++rows) {
    double best = std::numeric_limits<double>::infinity();
    for (int form = 0; form < kProductForms; ++form) {
      loss[rows][form] = SecondsFor(static_cast<ProductForm>(form), seconds[form], rows);
      best = std::min(best, loss[rows][form]);
    }
    for (double& value : loss[rows]) value = std::max(value / best, kNoise);
  }
  ProductChoice chosen{.affine_rows = 0, .bf16_rows = 0};
  double least = std::numeric_limits<double>::infinity();
  for (int64_t affine = kMaxSkinnyRows; affine >= 0; --affine) {
    for (int64_t bf16 = kMaxSkinnyRows; bf16 >= 0; --bf16) {
      const ProductChoice choice{affine, bf16};
      double total = 0;
      for (int64_t rows = 1; rows <= kMaxSkinnyRows; ++rows) {
        total += loss[rows][static_cast<int>(choice.FormOf(rows))];
      }
      if (total < least) {
        least = total;
        chosen = choice;
      }
    }
  }
  return chosen;
}

}  // namespace swaa::kernels::cpu
