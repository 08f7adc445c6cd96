// Cosines and sines of the step's positions.

#include "base/check.h"
#include "kernels/cuda/elementwise/elementwise.h"
#include "kernels/cuda/elementwise/launch.cuh"

namespace swaa::kernels::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    RopeTableKernel(const __grid_constant__ RopeTableParams p) {
  BeginKernel();
  const uint32_t i = blockIdx.x * kThreads + threadIdx.x;
  const auto half = static_cast<uint32_t>(p.half);
  const int64_t row = i / half;
  const uint32_t column = i % half;
  if (row >= p.rows) return;
  // Whole turns leave in double: f32 would keep too few digits of a far position's angle.
  constexpr double kInverseTwoPi = 0.15915494309189535;
  const double turns = static_cast<double>(p.positions[row]) *
                       static_cast<double>(p.inverse_frequencies[column]) * kInverseTwoPi;
  const auto half_turns = static_cast<float>(2 * (turns - rint(turns)));
  float sine, cosine;
  sincospif(half_turns, &sine, &cosine);
  float* out = p.cos_sin + row * 2 * half;
  out[column] = p.factor * cosine;
  out[half + column] = p.factor * sine;
}

}  // namespace

void RopeTable(const RopeTableParams& params, const Launch& launch) {
  SWAA_CHECK_GT(params.half, 0);
  SWAA_CHECK_LT(params.rows * params.half, int64_t{1} << 31) << params.rows;
  if (params.rows == 0) return;
  const int64_t blocks = (params.rows * params.half + kThreads - 1) / kThreads;
  LaunchKernel(RopeTableKernel, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), launch,
               params);
}

}  // namespace swaa::kernels::cuda
