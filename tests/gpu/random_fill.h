// Tests and benchmarks on the GPU: random and poisoned arrays.

#ifndef SWAA_TESTS_GPU_RANDOM_FILL_H_
#define SWAA_TESTS_GPU_RANDOM_FILL_H_

#include <cstdint>

#include "kernels/types.h"

namespace swaa::testing {

// Normal values of mean 0; the same seed and size give the same values.
void FillNormal(kernels::Bf16* x, int64_t count, uint64_t seed, float deviation);

}  // namespace swaa::testing

#endif  // SWAA_TESTS_GPU_RANDOM_FILL_H_
