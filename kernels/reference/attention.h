// Kernels, reference: attention in double precision, written straight from the definition. The
// oracle of every attention test; slow.

#ifndef SWAA_KERNELS_REFERENCE_ATTENTION_H_
#define SWAA_KERNELS_REFERENCE_ATTENTION_H_

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/types.h"

namespace swaa::kernels::reference {

// Does the query at position i see the key at position j?
bool Visible(const KeySpan& span, int64_t i, int64_t j);

struct AttentionInput {
  std::span<const float> q;  // [queries, heads, head_dim]
  std::span<const float> k;  // [first_position + queries, kv_heads, head_dim], dense
  std::span<const float> v;
  int32_t first_position = 0;  // of query 0
  KeySpan span;
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  double scale = 0;
};

// softmax(scale * q . K) V over visible keys, [queries, heads, head_dim].
std::vector<double> Attention(const AttentionInput& input);

}  // namespace swaa::kernels::reference

#endif  // SWAA_KERNELS_REFERENCE_ATTENTION_H_
