// Adds a bias in place, four elements a thread.

#include <algorithm>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "base/check.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/linear/add_bias.h"

namespace swaa::kernels::cuda {
namespace {

constexpr int kThreads = 256;

__device__ float4 Load(const float* at) { return *reinterpret_cast<const float4*>(at); }
__device__ float4 Load(const __nv_bfloat16* at) {
  const auto* pairs = reinterpret_cast<const __nv_bfloat162*>(at);
  const float2 low = __bfloat1622float2(pairs[0]);
  const float2 high = __bfloat1622float2(pairs[1]);
  return make_float4(low.x, low.y, high.x, high.y);
}
__device__ void Store(float* at, float4 v) { *reinterpret_cast<float4*>(at) = v; }
__device__ void Store(__nv_bfloat16* at, float4 v) {
  auto* pairs = reinterpret_cast<__nv_bfloat162*>(at);
  pairs[0] = __floats2bfloat162_rn(v.x, v.y);
  pairs[1] = __floats2bfloat162_rn(v.z, v.w);
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    AddBiasKernel(T* out, const float* bias, int64_t rows, int64_t features) {
  const int64_t feature = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * 4;
  if (feature >= features) return;
  const float4 b = Load(bias + feature);
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    T* at = out + row * features + feature;
    const float4 v = Load(at);
    Store(at, make_float4(v.x + b.x, v.y + b.y, v.z + b.z, v.w + b.w));
  }
}

}  // namespace

void AddBias(void* out, DataType out_type, const float* bias, int64_t rows, int64_t features,
             cudaStream_t stream) {
  SWAA_CHECK_EQ(features % 8, 0);
  const dim3 grid(static_cast<uint32_t>((features / 4 + kThreads - 1) / kThreads),
                  static_cast<uint32_t>(std::min<int64_t>(rows, 65535)));
  if (out_type == DataType::kF32) {
    AddBiasKernel<<<grid, kThreads, 0, stream>>>(static_cast<float*>(out), bias, rows, features);
  } else {
    AddBiasKernel<<<grid, kThreads, 0, stream>>>(static_cast<__nv_bfloat16*>(out), bias, rows,
                                                 features);
  }
  SWAA_CUDA_CHECK_LAUNCH();
}

}  // namespace swaa::kernels::cuda
