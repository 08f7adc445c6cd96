// Kernels, reference: attention in double precision.

#include "kernels/reference/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace swaa::kernels::reference {
namespace {

double Dot(const float* a, const float* b, int32_t count) {
  double sum = 0;
  for (int32_t d = 0; d < count; ++d) sum += static_cast<double>(a[d]) * b[d];
  return sum;
}

// One query of one head.
void Attend(const AttentionInput& input, int64_t query, int32_t head, double* out) {
  const int64_t position = input.first_position + query;
  const int32_t head_dim = input.head_dim;
  const int32_t kv_head = head / (input.heads / input.kv_heads);
  const float* q = input.q.data() + (query * input.heads + head) * head_dim;
  const auto row_of = [&](int64_t key) { return (key * input.kv_heads + kv_head) * head_dim; };

  std::vector<double> scores(position + 1, -std::numeric_limits<double>::infinity());
  for (int64_t j = 0; j <= position; ++j) {
    if (!Visible(input.span, position, j)) continue;
    scores[j] = input.scale * Dot(q, input.k.data() + row_of(j), head_dim);
  }
  const double maximum = *std::max_element(scores.begin(), scores.end());
  double total = 0;
  for (int64_t j = 0; j <= position; ++j) {
    if (!Visible(input.span, position, j)) continue;
    const double weight = std::exp(scores[j] - maximum);
    total += weight;
    const float* v = input.v.data() + row_of(j);
    for (int32_t d = 0; d < head_dim; ++d) out[d] += weight * v[d];
  }
  for (int32_t d = 0; d < head_dim; ++d) out[d] /= total;
}

}  // namespace

bool Visible(const KeySpan& span, int64_t i, int64_t j) {
  return j <= i && (i - j < span.window || j < span.sinks);
}

std::vector<double> Attention(const AttentionInput& input) {
  const int64_t row = static_cast<int64_t>(input.heads) * input.head_dim;
  const int64_t queries = static_cast<int64_t>(input.q.size()) / row;
  std::vector<double> out(queries * row, 0.0);
  for (int64_t query = 0; query < queries; ++query) {
    for (int32_t head = 0; head < input.heads; ++head) {
      Attend(input, query, head, out.data() + query * row + head * input.head_dim);
    }
  }
  return out;
}

}  // namespace swaa::kernels::reference
