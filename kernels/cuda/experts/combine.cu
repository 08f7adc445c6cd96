// Each row's sum of what its experts made of it.

#include "kernels/cuda/elementwise/launch.cuh"
#include "kernels/cuda/elementwise/vector8.cuh"
#include "kernels/cuda/experts/stages.h"

namespace swaa::kernels::cuda {
namespace {

constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads) CombineKernel(const __grid_constant__ CombineParams p) {
  BeginKernel();
  const int32_t row = static_cast<int32_t>(blockIdx.x);
  const int32_t column = static_cast<int32_t>(blockIdx.y * kThreads + threadIdx.x) * 8;
  if (column >= p.hidden) return;
  Vector8 sum = {};
  for (int32_t i = 0; i < p.experts_per_row; ++i) {
    const int64_t at = int64_t{row} * p.experts_per_row + i;
    const int32_t place = p.routes.places[at];
    if (place < 0) break;  // a dead row
    const float share = p.routes.shares[at];
    const Vector8 y = Load8(p.y + int64_t{place} * p.hidden + column);
#pragma unroll
    for (int j = 0; j < 8; ++j) sum.v[j] = fmaf(share, y.v[j], sum.v[j]);
  }
  Store8(p.out + int64_t{row} * p.hidden + column, sum);
}

}  // namespace

void CombineExperts(const CombineParams& params, const Launch& launch) {
  const int32_t blocks = (params.hidden / 8 + kThreads - 1) / kThreads;
  LaunchKernel(CombineKernel, dim3(params.rows, blocks), dim3(kThreads), launch, params);
}

}  // namespace swaa::kernels::cuda
