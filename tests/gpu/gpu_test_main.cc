// The GPU test program: runs all its tests on device 0 and exits non-zero if one fails or if there
// is no GPU. Names the card first.

#include <cstdio>
#include <cuda_runtime_api.h>

#include <gtest/gtest.h>

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  cudaDeviceProp device;
  const cudaError_t code = cudaGetDeviceProperties(&device, 0);
  if (code != cudaSuccess) {
    std::fprintf(stderr, "swaa_gpu_test: no usable GPU: %s\n", cudaGetErrorString(code));
    return 1;
  }
  std::printf("%s, compute capability %d.%d, %d multiprocessors\n", device.name, device.major,
              device.minor, device.multiProcessorCount);
  return RUN_ALL_TESTS();
}
