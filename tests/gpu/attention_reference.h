// The oracle of attention on the GPU: straight from the definition of visible keys, in double.

#ifndef SWAA_TESTS_GPU_ATTENTION_REFERENCE_H_
#define SWAA_TESTS_GPU_ATTENTION_REFERENCE_H_

#include <cstdint>

#include "kernels/types.h"

namespace swaa::kernels::cuda {

struct ReferenceRow {
  int32_t slot = 0;
  int32_t row = 0;  // of q and out
  int32_t position = 0;
  int32_t head = 0;
  KeySpan span;
};

struct ReferenceInput {
  const Bf16* q = nullptr;  // [rows, q_stride]
  int64_t q_stride = 0;
  const Bf16* out = nullptr;           // what is compared, [rows, heads, head_dim]
  const ReferenceRow* rows = nullptr;  // device
  int64_t row_count = 0;
  int32_t longest = 0;  // keys of any row
  PageTableView table;
  const Bf16* pool = nullptr;
  int32_t layer = 0;
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  float scale = 0;
};

// ||out - expected|| / ||expected|| over all rows; NaN when one value is. Synchronises.
double CompareWithReference(const ReferenceInput& input);

}  // namespace swaa::kernels::cuda

#endif  // SWAA_TESTS_GPU_ATTENTION_REFERENCE_H_
