// Elementwise operators for AVX-512 F, BW, DQ and VL.

#define SWAA_VARIANT avx512
#define SWAA_VECTOR_BYTES 64
#include "kernels/cpu/elementwise.inc"
