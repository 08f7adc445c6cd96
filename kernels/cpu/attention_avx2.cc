// Kernels, CPU backend: attention for processors with AVX2 and FMA. Built with those instructions.

#include <cstdint>
#include <immintrin.h>

namespace swaa::kernels::cpu {
namespace {

struct Simd {
  using Vec = __m256;
  static constexpr int kWidth = 8;
  static constexpr int kRows = 6;
  static constexpr const char* kNames[2] = {"avx2/l1", "avx2/l2"};
  static constexpr int kVectors = 2;

  static Vec Load(const float* p) { return _mm256_loadu_ps(p); }
  static void Store(float* p, Vec x) { _mm256_storeu_ps(p, x); }
  static Vec Broadcast(float x) { return _mm256_set1_ps(x); }
  static Vec MulAdd(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
  static Vec Mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
  static Vec Add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
  // NaN in b stays.
  static Vec Max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
  static float ReduceMax(Vec x) {
    const __m128 y = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    const __m128 z = _mm_max_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_max_ss(z, _mm_shuffle_ps(z, z, 1)));
  }
  static float ReduceSum(Vec x) {
    const __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    const __m128 z = _mm_add_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_add_ss(z, _mm_shuffle_ps(z, z, 1)));
  }

  // 2^x for x below 127, 9e-8 relative; 0 for x <= -127.
  static Vec Exp2(Vec x) {
    x = Max(Broadcast(-127.0f), x);
    const Vec n = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const Vec f = _mm256_sub_ps(x, n);
    Vec p = MulAdd(f, Broadcast(0.0013264727f), Broadcast(0.0096715126f));
    p = MulAdd(p, f, Broadcast(0.055507337f));
    p = MulAdd(p, f, Broadcast(0.24022242f));
    p = MulAdd(p, f, Broadcast(0.69314698f));
    p = MulAdd(p, f, Broadcast(1.0f));
    const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return Mul(p, _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23)));
  }

  static void LoadPairs(const uint16_t* p, Vec* first, Vec* second) {
    const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    *first = _mm256_castsi256_ps(_mm256_slli_epi32(x, 16));
    *second = _mm256_castsi256_ps(
        _mm256_and_si256(x, _mm256_set1_epi32(static_cast<int32_t>(0xffff0000u))));
  }
};

}  // namespace
}  // namespace swaa::kernels::cpu

#include "kernels/cpu/attention_fma.h"

namespace swaa::kernels::cpu {
const AttentionVariant kAvx2Bf16Pages[2] = {kBf16Variants[0], kBf16Variants[1]};
const AttentionVariant kAvx2F32Pages = kF32Variant;
}  // namespace swaa::kernels::cpu
