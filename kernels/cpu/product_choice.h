// Kernels, CPU backend: which form of a weight serves which row count. Where one overtakes another
// is a matter of the processor, of its memory and of the number of threads, so it is measured.

#ifndef SWAA_KERNELS_CPU_PRODUCT_CHOICE_H_
#define SWAA_KERNELS_CPU_PRODUCT_CHOICE_H_

#include <array>
#include <cstdint>

namespace swaa::kernels::cpu {

enum class ProductForm {
  kAffine,  // skinny_affine_product.h
  kBf16,    // skinny_bf16_product.h
  kOneDnn,  // onednn_matmul.h
};
inline constexpr int kProductForms = 3;

// More rows are always oneDNN's.
inline constexpr int64_t kMaxSkinnyRows = 32;

// Row counts that are measured; costs between them are taken from the line through their
// neighbours.
inline constexpr std::array<int64_t, 6> kMeasuredRows = {1, 2, 4, 8, 16, 32};

// Seconds of one form for each of kMeasuredRows; infinity where a weight lacks the form.
using FormSeconds = std::array<double, kMeasuredRows.size()>;

// Up to affine_rows rows are served by kAffine, then up to bf16_rows by kBf16, more by kOneDnn. A
// form that a weight lacks gives way to the next.
struct ProductChoice {
  int64_t affine_rows = 8;
  int64_t bf16_rows = 4;

  ProductForm FormOf(int64_t rows) const {
    if (rows <= affine_rows) return ProductForm::kAffine;
    return rows <= bf16_rows ? ProductForm::kBf16 : ProductForm::kOneDnn;
  }
};

// Rows that oneDNN computes for so many: few values, so that few primitives are made, and near
// enough that one row more never costs much more.
int64_t PaddedProductRows(int64_t rows);

// Seconds that a form takes for 1 .. kMaxSkinnyRows rows, by what was measured.
double SecondsFor(ProductForm form, const FormSeconds& seconds, int64_t rows);

// The choice whose row counts together lose least against the fastest form of each. What is slower
// by at most 5 % loses nothing, for so much is noise; of equal choices that with most rows by
// kAffine, which is exact and reads the fewest bytes.
ProductChoice ChooseForms(const std::array<FormSeconds, kProductForms>& seconds);

}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_PRODUCT_CHOICE_H_
