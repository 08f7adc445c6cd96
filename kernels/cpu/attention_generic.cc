// Kernels, CPU backend: attention for any x86-64-v2 processor, in vectors of four floats.

#include <cstdint>

namespace swaa::kernels::cpu {
namespace {

struct Simd {
  typedef float Vec __attribute__((vector_size(16)));
  typedef int32_t IntVec __attribute__((vector_size(16)));
  static constexpr int kWidth = 4;
  static constexpr int kRows = 4;
  static constexpr const char* kNames[2] = {"generic/l1", "generic/l2"};
  static constexpr int kVectors = 2;

  static Vec Load(const float* p) {
    Vec x;
    __builtin_memcpy(&x, p, sizeof(x));
    return x;
  }
  static void Store(float* p, Vec x) { __builtin_memcpy(p, &x, sizeof(x)); }
  static Vec Broadcast(float x) { return Vec{x, x, x, x}; }
  static Vec MulAdd(Vec a, Vec b, Vec c) { return a * b + c; }
  static Vec Mul(Vec a, Vec b) { return a * b; }
  static Vec Add(Vec a, Vec b) { return a + b; }
  // NaN in b stays.
  static Vec Max(Vec a, Vec b) { return a > b ? a : b; }
  static float ReduceMax(Vec x) {
    const float low = x[0] > x[1] ? x[0] : x[1];
    const float high = x[2] > x[3] ? x[2] : x[3];
    return low > high ? low : high;
  }
  static float ReduceSum(Vec x) { return (x[0] + x[1]) + (x[2] + x[3]); }

  // 2^x for x below 127, 9e-8 relative; 0 for x <= -127.
  static Vec Exp2(Vec x) {
    x = Max(Broadcast(-127.0f), x);
    // Adding 1.5 * 2^23 leaves the nearest integer in the low bits.
    const Vec shift = Broadcast(12582912.0f);
    const Vec shifted = x + shift;
    const Vec f = x - (shifted - shift);
    Vec p = f * 0.0013264727f + 0.0096715126f;
    p = p * f + 0.055507337f;
    p = p * f + 0.24022242f;
    p = p * f + 0.69314698f;
    p = p * f + 1.0f;
    const IntVec exponent = ((IntVec)shifted - (IntVec)shift + 127) << 23;
    return p * (Vec)exponent;
  }

  static void LoadPairs(const uint16_t* p, Vec* first, Vec* second) {
    IntVec x;
    __builtin_memcpy(&x, p, sizeof(x));
    *first = (Vec)(x << 16);
    *second = (Vec)(x & static_cast<int32_t>(0xffff0000u));
  }
};

}  // namespace
}  // namespace swaa::kernels::cpu

#include "kernels/cpu/attention_fma.h"

namespace swaa::kernels::cpu {
const AttentionVariant kGenericBf16Pages[2] = {kBf16Variants[0], kBf16Variants[1]};
const AttentionVariant kGenericF32Pages = kF32Variant;
}  // namespace swaa::kernels::cpu
