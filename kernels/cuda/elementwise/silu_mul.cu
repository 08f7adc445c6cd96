// The gate of a feed-forward layer.

#include "base/check.h"
#include "kernels/cuda/elementwise/elementwise.h"
#include "kernels/cuda/elementwise/launch.cuh"
#include "kernels/cuda/elementwise/vector8.cuh"

namespace swaa::kernels::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) SiluMulKernel(const __grid_constant__ SiluMulParams p) {
  BeginKernel();
  const int64_t row = blockIdx.x;
  const int64_t at = (int64_t{blockIdx.y} * kThreads + threadIdx.x) * 8;
  if (at >= p.width) return;
  const Bf16* from = p.gate_up + row * 2 * p.width + at;
  const Vector8 gate = Load8(from), up = Load8(from + p.width);
  Vector8 out;
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    out.v[j] = __fdividef(gate.v[j], 1.0f + __expf(-gate.v[j])) * up.v[j];
  }
  Store8(p.out + row * p.width + at, out);
}

}  // namespace

void SiluMul(const SiluMulParams& params, const Launch& launch) {
  SWAA_CHECK(params.width % 8 == 0 && params.width > 0) << params.width;
  if (params.rows == 0) return;
  const int64_t chunks = (params.width / 8 + kThreads - 1) / kThreads;
  LaunchKernel(SiluMulKernel, dim3(params.rows, chunks), dim3(kThreads), launch, params);
}

}  // namespace swaa::kernels::cuda
