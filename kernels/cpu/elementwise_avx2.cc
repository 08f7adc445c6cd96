// Elementwise operators for AVX2, FMA and F16C.

#define SWAA_VARIANT avx2
#define SWAA_VECTOR_BYTES 32
#include "kernels/cpu/elementwise.inc"
