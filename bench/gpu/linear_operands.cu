// Device memory and random numbers for it.

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "bench/gpu/linear_operands.h"
#include "kernels/cuda/cuda_check.h"

namespace swaa::linear_bench {
namespace {

__global__ void UniformKernel(__nv_bfloat16* out, int64_t count, float bound) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
    uint64_t z = static_cast<uint64_t>(i) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    out[i] = __float2bfloat16_rn(bound * (static_cast<float>(z >> 40) * 0x1p-23f - 1.0f));
  }
}

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) NormalizeKernel(__nv_bfloat162* x, int64_t pairs) {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
  __shared__ float shared[kThreads / 32];
  __nv_bfloat162* row = x + blockIdx.x * pairs;
  float sum = 0;
  for (int64_t i = threadIdx.x; i < pairs; i += kThreads) {
    const float2 v = __bfloat1622float2(row[i]);
    sum += v.x * v.x + v.y * v.y;
  }
  for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = sum;
  __syncthreads();
  sum = 0;
  for (const float part : shared) sum += part;
  const float scale = rsqrtf(sum / static_cast<float>(2 * pairs) + 1e-6f);
  for (int64_t i = threadIdx.x; i < pairs; i += kThreads) {
    const float2 v = __bfloat1622float2(row[i]);
    row[i] = __floats2bfloat162_rn(v.x * scale, v.y * scale);
  }
}

}  // namespace

DeviceMemory::DeviceMemory(int64_t bytes) { SWAA_CUDA_CHECK(cudaMalloc(&memory_, bytes)); }

DeviceMemory::~DeviceMemory() { cudaFree(memory_); }

void FillUniform(kernels::Bf16* out, int64_t count, float bound) {
  UniformKernel<<<2048, 256>>>(reinterpret_cast<__nv_bfloat16*>(out), count, bound);
  SWAA_CUDA_CHECK_LAUNCH();
  SWAA_CUDA_CHECK(cudaDeviceSynchronize());
}

void NormalizeRows(kernels::Bf16* x, int64_t rows, int64_t features, cudaStream_t stream,
                   bool dependent) {
  cudaLaunchAttribute attribute;
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<uint32_t>(rows));
  config.blockDim = dim3(kThreads);
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = dependent ? 1 : 0;
  SWAA_CUDA_CHECK(cudaLaunchKernelEx(&config, NormalizeKernel, reinterpret_cast<__nv_bfloat162*>(x),
                                     features / 2));
}

}  // namespace swaa::linear_bench
