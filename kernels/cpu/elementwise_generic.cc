// Elementwise operators for x86-64-v2.

#define SWAA_VARIANT generic
#define SWAA_VECTOR_BYTES 16
#include "kernels/cpu/elementwise.inc"
