// Naive double-precision operators: the oracle of every backend's tests. Row-major and dense.

#ifndef SWAA_KERNELS_REFERENCE_OPERATORS_H_
#define SWAA_KERNELS_REFERENCE_OPERATORS_H_

#include <cstdint>
#include <span>
#include <vector>

namespace swaa::kernels::reference {

// x [rows, hidden] * rsqrt(mean of the row's squares + epsilon) * weight [hidden].
std::vector<double> RmsNorm(std::span<const double> x, std::span<const double> weight,
                            double epsilon);

// x [rows, in] * weight [out, in]^T + bias [out] (empty: none): [rows, out].
std::vector<double> Linear(std::span<const double> x, std::span<const double> weight,
                           std::span<const double> bias, int64_t in_features);

// out [out] = up [out, rank] * (down [rank, in] * x [in]): what an adapter adds to a row.
std::vector<double> LowRank(std::span<const double> x, std::span<const double> down,
                            std::span<const double> up);

// Rotates heads [heads, head_dim] of one row at `position`, in place: dimension d with d + head_dim
// / 2, by position * inverse_frequencies[d].
void Rope(std::span<double> heads, double position, std::span<const float> inverse_frequencies);

// gate_up [rows, 2 width]: silu of the first half times the second: [rows, width].
std::vector<double> SiluMul(std::span<const double> gate_up, int64_t width);

// One feed-forward network of a mixture.
struct Expert {
  std::span<const double> gate_up;  // [2 width, hidden]: gate, up
  std::span<const double> down;     // [hidden, width]
};

// Of each of logits [rows, experts]: the weights [rows, experts] with which experts count: the
// softmax over all, of which the `experts_per_row` largest are kept (of equal ones the first), and
// divided by their sum if `normalize`; zero elsewhere.
std::vector<double> ExpertShares(std::span<const double> logits, int64_t experts,
                                 int64_t experts_per_row, bool normalize);

// x [rows, hidden] through every expert, weighted by shares [rows, experts]: [rows, hidden].
std::vector<double> Experts(std::span<const double> x, std::span<const double> shares,
                            std::span<const Expert> experts, int64_t hidden);

}  // namespace swaa::kernels::reference

#endif  // SWAA_KERNELS_REFERENCE_OPERATORS_H_
