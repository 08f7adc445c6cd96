// Functions that the host's compiler and CUDA's both build, the latter for both sides.

#ifndef SWAA_KERNELS_HOST_DEVICE_H_
#define SWAA_KERNELS_HOST_DEVICE_H_

#ifdef __CUDACC__
#define SWAA_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define SWAA_HOST_DEVICE inline
#endif

#endif  // SWAA_KERNELS_HOST_DEVICE_H_
