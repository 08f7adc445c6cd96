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

}  // namespace

DeviceMemory::DeviceMemory(int64_t bytes) { SWAA_CUDA_CHECK(cudaMalloc(&memory_, bytes)); }

DeviceMemory::~DeviceMemory() { cudaFree(memory_); }

void FillUniform(kernels::Bf16* out, int64_t count, float bound) {
  UniformKernel<<<2048, 256>>>(reinterpret_cast<__nv_bfloat16*>(out), count, bound);
  SWAA_CUDA_CHECK_LAUNCH();
  SWAA_CUDA_CHECK(cudaDeviceSynchronize());
}

}  // namespace swaa::linear_bench
