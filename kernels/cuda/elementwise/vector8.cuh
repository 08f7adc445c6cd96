// Eight consecutive elements of a row as one or two 16-byte accesses; f32 in registers.

#ifndef SWAA_KERNELS_CUDA_ELEMENTWISE_VECTOR8_CUH_
#define SWAA_KERNELS_CUDA_ELEMENTWISE_VECTOR8_CUH_

#include <cstdint>
#include <cuda_bf16.h>

#include "kernels/types.h"

namespace swaa::kernels::cuda {

struct Vector8 {
  float v[8];
};

__device__ __forceinline__ Vector8 Unpack8(uint4 packed) {
  const uint32_t words[4] = {packed.x, packed.y, packed.z, packed.w};
  Vector8 out;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    out.v[2 * i] = __uint_as_float(words[i] << 16);
    out.v[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
  }
  return out;
}

__device__ __forceinline__ uint4 Pack8(const Vector8& in) {
  uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(in.v[2 * i], in.v[2 * i + 1]);
    words[i] = *reinterpret_cast<const uint32_t*>(&pair);
  }
  return {words[0], words[1], words[2], words[3]};
}

__device__ __forceinline__ Vector8 Load8(const Bf16* from) {
  return Unpack8(*reinterpret_cast<const uint4*>(from));
}

__device__ __forceinline__ Vector8 Load8(const float* from) {
  const float4 low = reinterpret_cast<const float4*>(from)[0];
  const float4 high = reinterpret_cast<const float4*>(from)[1];
  return {{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}};
}

__device__ __forceinline__ void Store8(Bf16* to, const Vector8& value) {
  *reinterpret_cast<uint4*>(to) = Pack8(value);
}

__device__ __forceinline__ void Store8(float* to, const Vector8& value) {
  reinterpret_cast<float4*>(to)[0] = {value.v[0], value.v[1], value.v[2], value.v[3]};
  reinterpret_cast<float4*>(to)[1] = {value.v[4], value.v[5], value.v[6], value.v[7]};
}

// What a store of the value would keep of it.
template <typename T>
__device__ __forceinline__ float RoundedTo(float value) {
  if constexpr (sizeof(T) == sizeof(float)) {
    return value;
  } else {
    return __bfloat162float(__float2bfloat16_rn(value));
  }
}

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_ELEMENTWISE_VECTOR8_CUH_
