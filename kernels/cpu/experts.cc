// Routing, grouped products and weighted sums of a mixture of experts.

#include "kernels/cpu/experts.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>

#include "base/check.h"
#include "kernels/cpu/parallel_ranges.h"

namespace swaa::kernels::cpu {
namespace {

constexpr int64_t kAlignment = 256;

// Where the parts of the scratch begin: bytes. All hold a line a pair, and room for padding.
struct ScratchLayout {
  ScratchLayout(const ExpertsShape& shape, int64_t rows, int64_t activation_bytes) {
    const int64_t lines = rows * shape.experts_per_row + CpuLinear::kMaxPaddingRows;
    const auto place = [&](int64_t line_bytes) {
      const int64_t begin = bytes;
      bytes += (lines * line_bytes + kAlignment - 1) / kAlignment * kAlignment;
      return begin;
    };
    x = place(shape.hidden * activation_bytes);
    gate_up = place(2 * shape.width * activation_bytes);
    gated = place(shape.width * activation_bytes);
    y = place(shape.hidden * int64_t{4});
  }
  int64_t x;        // [pairs, hidden], activation type
  int64_t gate_up;  // [pairs, 2 width], activation type
  int64_t gated;    // [pairs, width], activation type
  int64_t y;        // [pairs, hidden], f32
  int64_t bytes = 0;
};

// The `count` largest of a row's logits, falling; of equal ones the lower expert comes first.
void ChooseExperts(const float* logits, int32_t experts, int32_t count, int32_t* chosen) {
  int32_t found = 0;
  for (int32_t e = 0; e < experts; ++e) {
    if (found == count && !(logits[e] > logits[chosen[count - 1]])) continue;
    int32_t place = found < count ? found++ : count - 1;
    for (; place > 0 && logits[e] > logits[chosen[place - 1]]; --place) {
      chosen[place] = chosen[place - 1];
    }
    chosen[place] = e;
  }
}

// The chosen experts' part of a softmax over all, or over themselves.
void ComputeShares(const float* logits, int32_t experts, const int32_t* chosen, int32_t count,
                   bool normalize, float* shares) {
  const float largest = logits[chosen[0]];
  float sum = 0;
  for (int32_t i = 0; i < count; ++i) {
    shares[i] = std::exp(logits[chosen[i]] - largest);
    sum += shares[i];
  }
  if (!normalize) {
    sum = 0;
    for (int32_t e = 0; e < experts; ++e) sum += std::exp(logits[e] - largest);
  }
  for (int32_t i = 0; i < count; ++i) shares[i] /= sum;
}

// A counting sort by expert.
void SortPairs(int32_t experts, int32_t experts_per_row, ExpertRoutes* routes) {
  const auto pairs = static_cast<int64_t>(routes->experts.size());
  std::vector<int32_t> next(experts + 1);  // first counts, one place further, then places
  for (const int32_t expert : routes->experts) ++next[expert + 1];
  routes->groups.clear();
  for (int32_t e = 0; e < experts; ++e) {
    if (next[e + 1] > 0) routes->groups.push_back({e, next[e], next[e + 1]});
    next[e + 1] += next[e];
  }
  routes->rows.resize(pairs);
  routes->pairs.resize(pairs);
  for (int64_t i = 0; i < pairs; ++i) {
    const int32_t pair = next[routes->experts[i]]++;
    routes->rows[pair] = static_cast<int32_t>(i / experts_per_row);
    routes->pairs[i] = pair;
  }
}

}  // namespace

void RouteRows(std::span<const float> logits, int32_t experts, int32_t experts_per_row,
               bool normalize, int threads, ExpertRoutes* routes) {
  const auto rows = static_cast<int64_t>(logits.size()) / experts;
  routes->experts.resize(rows * experts_per_row);
  routes->shares.resize(rows * experts_per_row);
  // An exponential costs about as much as sixteen elements of other loops.
  ForRanges(threads, rows, int64_t{16} * experts, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      const float* row = logits.data() + r * experts;
      int32_t* chosen = routes->experts.data() + r * experts_per_row;
      ChooseExperts(row, experts, experts_per_row, chosen);
      ComputeShares(row, experts, chosen, experts_per_row, normalize,
                    routes->shares.data() + r * experts_per_row);
    }
  });
  SortPairs(experts, experts_per_row, routes);
}

int64_t CpuExperts::ScratchBytes(const ExpertsShape& shape, int64_t rows) const {
  return ScratchLayout(shape, rows, SizeOf(activations_)).bytes;
}

void CpuExperts::Run(const ExpertsParams& p) {
  if (p.rows == 0) return;
  const auto count = static_cast<int32_t>(p.experts.size());
  SWAA_CHECK(p.experts_per_row >= 1 && p.experts_per_row <= count)
      << p.experts_per_row << " of " << count << " experts";
  RouteRows({p.logits, static_cast<size_t>(p.rows * count)}, count, p.experts_per_row, p.normalize,
            threads_, &routes_);
  const Weight& down = *p.experts[routes_.groups.front().expert].down;
  const ExpertsShape shape{.hidden = down.out_features(),
                           .width = down.in_features(),
                           .count = count,
                           .experts_per_row = p.experts_per_row};
  const int64_t element = SizeOf(activations_);
  const ScratchLayout layout(shape, p.rows, element);
  auto* scratch = static_cast<std::byte*>(p.scratch);
  const int64_t pairs = p.rows * p.experts_per_row, line = shape.hidden * element;
  ForRanges(threads_, pairs, shape.hidden / 4, [&](int64_t first, int64_t last) {
    for (int64_t pair = first; pair < last; ++pair) {
      std::memcpy(scratch + layout.x + pair * line,
                  static_cast<const std::byte*>(p.x) + routes_.rows[pair] * line, line);
    }
  });
  Multiply(p, &ExpertWeights::gate_up, scratch + layout.x, activations_, scratch + layout.gate_up);
  const int64_t width_bytes = shape.width * element;
  ForRanges(threads_, pairs, 4 * shape.width, [&](int64_t first, int64_t last) {
    for (int64_t pair = first; pair < last; ++pair) {
      const std::byte* gate = scratch + layout.gate_up + pair * 2 * width_bytes;
      elementwise_.silu_mul(gate, gate + width_bytes, shape.width,
                            scratch + layout.gated + pair * width_bytes,
                            activations_ == DataType::kBf16);
    }
  });
  Multiply(p, &ExpertWeights::down, scratch + layout.gated, DataType::kF32, scratch + layout.y);
  const auto* y = reinterpret_cast<const float*>(scratch + layout.y);
  ForRanges(threads_, p.rows, shape.hidden * p.experts_per_row, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      float* out = static_cast<float*>(p.out) + r * shape.hidden;
      std::fill_n(out, shape.hidden, 0.0f);
      for (int64_t i = r * p.experts_per_row; i < (r + 1) * p.experts_per_row; ++i) {
        elementwise_.add_scaled(out, y + routes_.pairs[i] * shape.hidden, routes_.shares[i],
                                shape.hidden);
      }
    }
  });
}

// One product of each group's expert and pairs; x and out hold a line a pair.
void CpuExperts::Multiply(const ExpertsParams& p, const Weight* ExpertWeights::*weight,
                          const void* x, DataType out_type, void* out) {
  products_.clear();
  for (const ExpertRoutes::Group& group : routes_.groups) {
    const Weight* of_expert = p.experts[group.expert].*weight;
    const int64_t x_bytes = of_expert->in_features() * SizeOf(activations_);
    const int64_t out_bytes = of_expert->out_features() * SizeOf(out_type);
    products_.push_back({.weight = of_expert,
                         .x = static_cast<const std::byte*>(x) + group.first_pair * x_bytes,
                         .out = static_cast<std::byte*>(out) + group.first_pair * out_bytes,
                         .out_type = out_type,
                         .rows = group.pairs});
  }
  linear_->RunGrouped(products_);
}

}  // namespace swaa::kernels::cpu
