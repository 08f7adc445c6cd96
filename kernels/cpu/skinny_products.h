// Products of few rows with weights of any form but oneDNN's, one or many at a time.

#ifndef SWAA_KERNELS_CPU_SKINNY_PRODUCTS_H_
#define SWAA_KERNELS_CPU_SKINNY_PRODUCTS_H_

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cpu/product_choice.h"
#include "kernels/cpu/skinny_affine_product.h"
#include "kernels/cpu/skinny_bf16_product.h"
#include "kernels/operators.h"

namespace swaa::kernels::cpu {

// params.weight is a CpuWeight that has the form, which is kAffine or kBf16; 1 .. kMaxSkinnyRows
// rows.
struct SkinnyProduct {
  LinearParams params;
  ProductForm form;
};

// Used by one thread, in whose OpenMP threads it computes.
class SkinnyProducts {
 public:
  explicit SkinnyProducts(int threads) : threads_(threads) {}

  // All of them, shared out among the threads together. No product writes past its rows.
  void Run(std::span<const SkinnyProduct> products);

 private:
  // A product as its kernels want it, in blocks of rows.
  struct Prepared {
    ProductForm form;
    int64_t count = 0;  // of blocks
    std::array<SkinnyAffineProduct, kMaxAffineProducts> affine;
    std::array<SkinnyBf16Product, kMaxBf16Products> bf16;
    int64_t column_groups = 0;  // of 16 outputs
    int64_t block_groups = 0;   // of a column block
    int64_t first_block = 0;    // of all products' column blocks, one after the other
  };
  // Where the activations of the next product are prepared.
  struct Room {
    int32_t* pairs;
    float* sums;
  };

  static void PrepareAffine(const LinearParams& p, Room room, Prepared* prepared);
  static void PrepareBf16(const LinearParams& p, Room room, Prepared* prepared);
  // Column blocks first .. last - 1.
  void Compute(int64_t first, int64_t last) const;

  int threads_;
  std::vector<Prepared> prepared_;
  std::vector<int32_t> pairs_;
  std::vector<float> sums_;
};

}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_SKINNY_PRODUCTS_H_
