// Kernels, CPU backend: attention for processors with AVX-512 (F, BW, DQ, VL), in f32. Built with
// those instructions.

#include <cstdint>
#include <immintrin.h>

namespace swaa::kernels::cpu {
namespace {

struct Simd {
  using Vec = __m512;
  static constexpr int kWidth = 16;
  static constexpr int kRows = 6;
  static constexpr const char* kNames[2] = {"avx512/l1", "avx512/l2"};
  static constexpr int kVectors = 4;

  static Vec Load(const float* p) { return _mm512_loadu_ps(p); }
  static void Store(float* p, Vec x) { _mm512_storeu_ps(p, x); }
  static Vec Broadcast(float x) { return _mm512_set1_ps(x); }
  static Vec MulAdd(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
  static Vec Mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
  static Vec Add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
  // NaN in b stays.
  static Vec Max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
  static float ReduceMax(Vec x) { return _mm512_reduce_max_ps(x); }
  static float ReduceSum(Vec x) { return _mm512_reduce_add_ps(x); }

  // 2^x for x below 128, 9e-8 relative; 0 for x <= -160.
  static Vec Exp2(Vec x) {
    x = Max(Broadcast(-160.0f), x);
    const Vec n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const Vec f = _mm512_sub_ps(x, n);
    Vec p = MulAdd(f, Broadcast(0.0013264727f), Broadcast(0.0096715126f));
    p = MulAdd(p, f, Broadcast(0.055507337f));
    p = MulAdd(p, f, Broadcast(0.24022242f));
    p = MulAdd(p, f, Broadcast(0.69314698f));
    p = MulAdd(p, f, Broadcast(1.0f));
    return _mm512_scalef_ps(p, n);
  }

  static void LoadPairs(const uint16_t* p, Vec* first, Vec* second) {
    const __m512i x = _mm512_loadu_si512(p);
    *first = _mm512_castsi512_ps(_mm512_slli_epi32(x, 16));
    *second = _mm512_castsi512_ps(
        _mm512_and_si512(x, _mm512_set1_epi32(static_cast<int32_t>(0xffff0000u))));
  }
};

}  // namespace
}  // namespace swaa::kernels::cpu

#include "kernels/cpu/attention_fma.h"

namespace swaa::kernels::cpu {
const AttentionVariant kAvx512Bf16Pages[2] = {kBf16Variants[0], kBf16Variants[1]};
const AttentionVariant kAvx512F32Pages = kF32Variant;
}  // namespace swaa::kernels::cpu
