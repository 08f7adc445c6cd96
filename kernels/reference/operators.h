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

// Rotates heads [heads, head_dim] of one row at `position`, in place: dimension d with d + head_dim
// / 2, by position * inverse_frequencies[d].
void Rope(std::span<double> heads, double position, std::span<const float> inverse_frequencies);

// gate_up [rows, 2 width]: silu of the first half times the second: [rows, width].
std::vector<double> SiluMul(std::span<const double> gate_up, int64_t width);

}  // namespace swaa::kernels::reference

#endif  // SWAA_KERNELS_REFERENCE_OPERATORS_H_
