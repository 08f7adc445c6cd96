// Row-wise operators of the CPU backend: plain loops over a row or a few, one variant an
// instruction set.
// Serial; any thread.

#ifndef SWAA_KERNELS_CPU_ELEMENTWISE_H_
#define SWAA_KERNELS_CPU_ELEMENTWISE_H_

#include <cstdint>

#include "kernels/cpu/instruction_set.h"

namespace swaa::kernels::cpu {

// Blocks of adapters' matrices (lora.h).
inline constexpr int64_t kLoraRanks = 16;    // of down, side by side
inline constexpr int64_t kLoraColumns = 64;  // of up, side by side
inline constexpr int64_t kLoraRows = 4;      // that pass over a block together

// One variant. No pointer needs an alignment, no length a divisor. Where `bf16` is set, void
// pointers are bf16 (rounded to nearest, ties to even), else f32.
struct ElementwiseKernels {
  // residual += delta (null: nothing), out = residual * rsqrt(mean(residual^2) + epsilon) * weight
  // over n elements.
  void (*add_norm)(float* residual, const float* delta, const float* weight, int64_t n,
                   float epsilon, void* out, bool bf16);
  // out = silu(gate) * up over n elements.
  void (*silu_mul)(const void* gate, const void* up, int64_t n, void* out, bool bf16);
  // One head in place: where norm is given an RMS norm with those weights, then the rotate-half
  // rotary embedding. cos_sin: head_dim / 2 cosines, then as many sines; null: the norm alone.
  void (*rope_head)(float* head, const float* cos_sin, int64_t head_dim, const float* norm,
                    float epsilon);
  // sum += factor * x over n elements.
  void (*add_scaled)(float* sum, const float* x, float factor, int64_t n);
  // values rounded to bf16 and back, in place.
  void (*round_to_bf16)(float* values, int64_t n);
  // n elements of bf16 as f32.
  void (*bf16_to_float)(const void* values, int64_t n, float* out);
  // sums[r * stride + k] = sum of x[r][i] * block[i, k] over n inputs, for `rows` <= kLoraRows rows
  // and all k < kLoraRanks; in the same order for any number of rows. block [n, kLoraRanks].
  void (*lora_down)(const void* block, bool bf16, const float* const* x, int64_t n, int64_t rows,
                    float* sums, int64_t stride);
  // outs[r][c] += sum of sums[r * stride + k] * block[k, c] over `rank` of k, for `rows` <=
  // kLoraRows rows and c < count <= kLoraColumns; in the same order for any number of rows. block
  // [rank, kLoraColumns]; bf16 is the block's type, out_bf16 that of outs.
  void (*lora_up)(const void* block, bool bf16, const float* sums, int64_t stride, int64_t rank,
                  void* const* outs, int64_t rows, int64_t count, bool out_bf16);
};

// The variant for a machine of that set (AMX takes the AVX-512 one). Lives for ever.
const ElementwiseKernels& ElementwiseFor(InstructionSet set);

// The variants, each compiled for its instructions: calling one on a lesser machine is a fault.
namespace generic {
extern const ElementwiseKernels kElementwise;
}
namespace avx2 {
extern const ElementwiseKernels kElementwise;
}
namespace avx512 {
extern const ElementwiseKernels kElementwise;
}

}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_ELEMENTWISE_H_
