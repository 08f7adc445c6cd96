// Tests and benchmarks on the GPU: random and poisoned arrays.

#ifndef SWAA_TESTS_GPU_RANDOM_FILL_H_
#define SWAA_TESTS_GPU_RANDOM_FILL_H_

#include <cstdint>

#include "kernels/types.h"

namespace swaa::kernels::cuda {

// Normal values of mean 0; the same seed and size give the same values.
void FillNormal(Bf16* x, int64_t count, uint64_t seed, float deviation);

}  // namespace swaa::kernels::cuda

#endif  // SWAA_TESTS_GPU_RANDOM_FILL_H_
