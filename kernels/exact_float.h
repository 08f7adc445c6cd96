// Arithmetic that gives the same bits on the processor and on a GPU: every operation is rounded by
// itself, never fused into a multiply-add. Host files that include this are compiled with
// -ffp-contract=off.

#ifndef SWAA_KERNELS_EXACT_FLOAT_H_
#define SWAA_KERNELS_EXACT_FLOAT_H_

#include <bit>
#include <cstdint>

#include "kernels/host_device.h"

#if defined(__CUDACC__)
#define SWAA_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define SWAA_HOST_DEVICE inline
#endif

namespace swaa::kernels::exact {

#if defined(__CUDA_ARCH__)
SWAA_HOST_DEVICE float Add(float a, float b) { return __fadd_rn(a, b); }
SWAA_HOST_DEVICE float Mul(float a, float b) { return __fmul_rn(a, b); }
SWAA_HOST_DEVICE float Div(float a, float b) { return __fdiv_rn(a, b); }
SWAA_HOST_DEVICE double Add(double a, double b) { return __dadd_rn(a, b); }
SWAA_HOST_DEVICE double Mul(double a, double b) { return __dmul_rn(a, b); }
#else
SWAA_HOST_DEVICE float Add(float a, float b) { return a + b; }
SWAA_HOST_DEVICE float Mul(float a, float b) { return a * b; }
SWAA_HOST_DEVICE float Div(float a, float b) { return a / b; }
SWAA_HOST_DEVICE double Add(double a, double b) { return a + b; }
SWAA_HOST_DEVICE double Mul(double a, double b) { return a * b; }
#endif

SWAA_HOST_DEVICE float FromBits(uint32_t bits) { return std::bit_cast<float>(bits); }
SWAA_HOST_DEVICE uint32_t ToBits(float value) { return std::bit_cast<uint32_t>(value); }

// log(1 + d) for d in [sqrt(1/2) - 1, sqrt(2) - 1], within 1e-7 of it relatively: two terms of the
// series, and for the rest, divided by d^3, the polynomial that interpolates it at Chebyshev nodes.
SWAA_HOST_DEVICE float Log1pReduced(float d) {
  float p = 0.0697161147f;
  p = Add(Mul(p, d), -0.114797338f);
  p = Add(Mul(p, d), 0.116854199f);
  p = Add(Mul(p, d), -0.124256873f);
  p = Add(Mul(p, d), 0.142490576f);
  p = Add(Mul(p, d), -0.166678023f);
  p = Add(Mul(p, d), 0.200007157f);
  p = Add(Mul(p, d), -0.24999997f);
  p = Add(Mul(p, d), 0.333333312f);
  const float square = Mul(d, d);
  return Add(d, Mul(square, Add(Mul(p, d), -0.5f)));
}

// x = 2^exponent * (1 + d), x normal and positive, d in the range of Log1pReduced.
struct LogParts {
  int32_t exponent;
  float d;
};
SWAA_HOST_DEVICE LogParts SplitForLog(float x) {
  constexpr int32_t kSqrtHalf = 0x3f3504f3;  // bits of sqrt(1/2)
  const auto bits = static_cast<int32_t>(ToBits(x));
  const int32_t exponent = (bits - kSqrtHalf) >> 23;
  const float mantissa = FromBits(static_cast<uint32_t>(bits - exponent * (1 << 23)));
  return {exponent, Add(mantissa, -1.0f)};
}

SWAA_HOST_DEVICE float JoinLog(LogParts parts) {
  const auto exponent = static_cast<float>(parts.exponent);
  // ln 2 in two parts, the first exact in a product with a small integer.
  return Add(Mul(exponent, 0.693359375f),
             Add(Mul(exponent, -2.12194440e-4f), Log1pReduced(parts.d)));
}

// ln x of a positive normal number.
SWAA_HOST_DEVICE float Log(float x) { return JoinLog(SplitForLog(x)); }

// e^x for x <= 0, within 3e-7 of it relatively and exactly 1 at 0; below kLowestExp it stays at
// e^kLowestExp, which no sum beside 1 notices. Without branches, so that loops over it vectorise.
inline constexpr float kLowestExp = -87;
SWAA_HOST_DEVICE float Exp(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
  x = x > kLowestExp ? x : kLowestExp;
  const float n = Add(Add(Mul(x, 1.44269504f), kRound), -kRound);
  const float r = Add(Add(x, -Mul(n, 0.693145752f)), -Mul(n, 1.42860677e-6f));
  float p = 1.0f / 720;
  p = Add(Mul(p, r), 1.0f / 120);
  p = Add(Mul(p, r), 1.0f / 24);
  p = Add(Mul(p, r), 1.0f / 6);
  p = Add(Mul(p, r), 0.5f);
  p = Add(Mul(p, r), 1.0f);
  p = Add(Mul(p, r), 1.0f);
  return Mul(p, FromBits(static_cast<uint32_t>(static_cast<int32_t>(n) + 127) << 23));
}

}  // namespace swaa::kernels::exact

#endif  // SWAA_KERNELS_EXACT_FLOAT_H_
