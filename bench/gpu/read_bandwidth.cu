// The rate at which the card reads its memory.

#include <cstdint>

#include "bench/gpu/gpu_bench.h"
#include "bench/gpu/read_bandwidth.h"
#include "kernels/cuda/cuda_check.h"

namespace swaa::bench {
namespace {

constexpr int kThreads = 512;
constexpr int kLoads = 8;  // in flight a thread

__global__ void __launch_bounds__(kThreads)
    ReadAll(const uint4* __restrict__ from, int64_t count, uint32_t* sink) {
  uint32_t sum = 0;
  const int64_t stride = int64_t{gridDim.x} * kThreads * kLoads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads * kLoads + threadIdx.x; i < count; i += stride) {
    uint4 v[kLoads];
#pragma unroll
    for (int j = 0; j < kLoads; ++j) {
      const int64_t at = i + int64_t{j} * kThreads;
      v[j] = at < count ? __ldcs(from + at) : uint4{0, 0, 0, 0};
    }
#pragma unroll
    for (int j = 0; j < kLoads; ++j) sum ^= v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
  }
  if (sum == 0x5eed) *sink = sum;  // never seen by the compiler as unused
}

__global__ void Fill(uint32_t* to, int64_t count) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += stride) {
    to[i] = static_cast<uint32_t>(i) * 2654435761u;
  }
}

}  // namespace

double MeasureReadBandwidth() {
  constexpr int64_t kBytes = int64_t{4} << 30;
  uint8_t* memory = nullptr;
  SWAA_CUDA_CHECK(cudaMalloc(&memory, kBytes + 256));
  auto* sink = reinterpret_cast<uint32_t*>(memory + kBytes);
  int multiprocessors = 0;
  SWAA_CUDA_CHECK(
      cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, /*device=*/0));
  cudaStream_t stream;
  SWAA_CUDA_CHECK(cudaStreamCreate(&stream));
  Fill<<<multiprocessors * 8, 256, 0, stream>>>(reinterpret_cast<uint32_t*>(memory), kBytes / 4);
  SWAA_CUDA_CHECK_LAUNCH();
  const double seconds = MedianSeconds(stream, [&](int) {
    ReadAll<<<multiprocessors * 4, kThreads, 0, stream>>>(reinterpret_cast<const uint4*>(memory),
                                                          kBytes / 16, sink);
    SWAA_CUDA_CHECK_LAUNCH();
  });
  SWAA_CUDA_CHECK(cudaStreamDestroy(stream));
  SWAA_CUDA_CHECK(cudaFree(memory));
  return static_cast<double>(kBytes) / seconds;
}

}  // namespace swaa::bench
