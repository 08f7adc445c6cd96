// Random arrays.

#include "kernels/cuda/cuda_check.h"
#include "tests/gpu/random_fill.h"

namespace swaa::testing {
namespace {

__device__ uint32_t Hash(uint64_t x) {
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccdull;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53ull;
  x ^= x >> 33;
  return static_cast<uint32_t>(x);
}

__global__ void Normal(uint16_t* x, int64_t count, uint64_t seed, float deviation) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += stride) {
    const uint64_t at = seed * 0x9e3779b97f4a7c15ull + 2 * i;
    const float u = (Hash(at) + 1.f) * 2.3283064e-10f, v = Hash(at + 1) * 2.3283064e-10f;
    const float value = deviation * sqrtf(-2.f * __logf(fminf(u, 1.f))) * __cosf(6.2831853f * v);
    uint32_t bits = __float_as_uint(value);
    bits += 0x7fffu + ((bits >> 16) & 1u);
    x[i] = static_cast<uint16_t>(bits >> 16);
  }
}

}  // namespace

void FillNormal(kernels::Bf16* x, int64_t count, uint64_t seed, float deviation) {
  Normal<<<1056, 256>>>(reinterpret_cast<uint16_t*>(x), count, seed, deviation);
  SWAA_CUDA_CHECK_LAUNCH();
}

}  // namespace swaa::testing
