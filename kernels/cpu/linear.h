// Products of the CPU backend. Many rows are bound by arithmetic and go to oneDNN; few rows are
// bound by the bytes of the weight and go to kernels that read no more of them than they must.
//
//   Pack -> CpuWeight { packed by oneDNN, and as levels where it is affine-quantised }
//   Run  -> few rows, levels         skinny_affine_product.h
//           few rows, bf16           skinny_bf16_product.h, on oneDNN's packed weight
//           anything else            onednn_matmul.h
//
// How many rows are few is measured while packing, once for each kind of weight (product_choice.h).

#ifndef SWAA_KERNELS_CPU_LINEAR_H_
#define SWAA_KERNELS_CPU_LINEAR_H_

#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/statusor.h"
#include "kernels/cpu/product_choice.h"
#include "kernels/operators.h"

namespace swaa::kernels::cpu {

// Used by one thread, in whose OpenMP threads it computes.
class CpuLinear {
 public:
  // type: of weights and x. skinny: the processor has AVX-512 F, BW, VL and BF16, and may use
  // them.
  static std::unique_ptr<CpuLinear> Create(DataType type, bool skinny, int threads);
  virtual ~CpuLinear() = default;

  // As Operators::PackWeight; reads the rows once for each form that it keeps.
  virtual absl::StatusOr<std::unique_ptr<Weight>> Pack(int64_t out_features, int64_t in_features,
                                                       const RowReader& read_rows) = 0;

  // As Operators::Linear; params.weight comes from Pack.
  virtual void Run(const LinearParams& params) = 0;

  // Products that lie one after another: each one's x and out begin where those of the one before
  // it end. One padded to whole blocks of rows runs into its neighbour's place, so only what is
  // behind the last one must be room, for kMaxPaddingRows rows. All few-row products are shared out
  // among the threads together.
  virtual void RunGrouped(std::span<const LinearParams> products) = 0;

  // The form that Run takes for so many rows of a weight from Pack, and a product by a form that
  // the weight has (at most kMaxSkinnyRows rows unless it is kOneDnn). For tests and benchmarks.
  virtual ProductForm FormFor(const Weight& weight, int64_t rows) const = 0;
  virtual void RunAs(const LinearParams& params, ProductForm form) = 0;

  // The most that a packed weight takes.
  virtual int64_t MaxBytes(int64_t out_features, int64_t in_features) const = 0;

  // As Operators::PaddedRows; at most kMaxPaddingRows more than `rows`.
  static constexpr int64_t kMaxPaddingRows = 127;
  static int64_t PaddedRows(int64_t rows);
};

}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_LINEAR_H_
