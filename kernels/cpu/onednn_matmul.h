// Matrix products by oneDNN: the only place that knows the library. Compiles with oneDNN 2 and 3.

#ifndef SWAA_KERNELS_CPU_ONEDNN_MATMUL_H_
#define SWAA_KERNELS_CPU_ONEDNN_MATMUL_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/operators.h"

namespace swaa::kernels::cpu {

// How a packed weight lies in memory, where it is the layout that skinny_bf16_product.h reads:
// [out/column_block][in padded to 32][column_block], with two consecutive `in` of bf16 side by
// side: [out/column_block][in/2][column_block][2]. Padding is zero.
struct PairBlockedLayout {
  int64_t column_block = 0;  // 16, 32, 48 or 64 output features; 0: another layout
  int64_t block_stride = 0;  // elements from one column block to the next
};

// A weight in the one layout that serves all row counts: what oneDNN picks for many rows. Its
// small-row primitives take the same one.
class PackedWeight : public Weight {
 public:
  virtual const void* data() const = 0;
  virtual const PairBlockedLayout& layout() const = 0;
};

// Products out = x W^T. Used by one thread, in whose OpenMP threads it computes.
class OneDnnMatmul {
 public:
  // type: of weights and x.
  static std::unique_ptr<OneDnnMatmul> Create(DataType type);
  virtual ~OneDnnMatmul() = default;

  // Reads blocks of rows in parallel and packs them. INTERNAL with oneDNN's message if it has no
  // product of that type on this machine; RESOURCE_EXHAUSTED without memory.
  virtual absl::StatusOr<std::unique_ptr<PackedWeight>> Pack(int64_t out_features,
                                                             int64_t in_features,
                                                             const RowReader& read_rows) = 0;

  // The product over `rows` rows (params.rows is not read). The first call of a combination of
  // shape, rows and outputs makes a primitive, well under a millisecond each, which is kept:
  // callers round rows up to few values.
  virtual void Run(const LinearParams& params, int64_t rows) = 0;

  // oneDNN's name of what Run takes for this combination, such as "brg:avx512_core_amx_bf16".
  virtual std::string Implementation(const LinearParams& params, int64_t rows) = 0;
};

}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_ONEDNN_MATMUL_H_
