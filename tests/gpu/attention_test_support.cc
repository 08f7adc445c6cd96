// What several tests of attention on the GPU need.

#include "tests/gpu/attention_test_support.h"

#include <cstdlib>
#include <cstring>
#include <iostream>
#include <random>
#include <string>

#include <gtest/gtest.h>

#include "kernels/cuda/cuda_check.h"

namespace swaa::kernels::cuda {

bool DeviceIsHopper() {
  cudaDeviceProp device;
  SWAA_CUDA_CHECK(cudaGetDeviceProperties(&device, 0));
  return device.major == 9 && device.minor == 0;
}

uint64_t TestSeed() {
  static const uint64_t seed = [] {
    const char* fixed = std::getenv("SWAA_TEST_SEED");
    const uint64_t value = fixed != nullptr ? std::stoull(fixed) : std::random_device()();
    std::cout << "SWAA_TEST_SEED=" << value << std::endl;
    return value;
  }();
  return seed;
}

void ExpectLayersRight(const AttentionProblem& problem, AttentionKernels kernels,
                       const std::vector<int32_t>& layers) {
  AttentionRunner runner(problem, kernels, problem.num_classes());
  const AttentionStep step = problem.step();
  runner.Plan(step);
  for (const int32_t layer : layers) {
    for (int run = 0; run < 2; ++run) {
      problem.PoisonOutput();
      runner.Run(layer);
      SWAA_CUDA_CHECK(cudaDeviceSynchronize());
      const double error = problem.Error(step, layer);
      // Also false for NaN.
      EXPECT_TRUE(error < kErrorLimit) << "layer " << layer << " run " << run << ": " << error;
      EXPECT_EQ(problem.TouchedRow(step), "") << "layer " << layer;
      EXPECT_TRUE(runner.CountersAreZero());
      if (::testing::Test::HasFailure()) return;
    }
  }
}

std::vector<Bf16> OutputOf(const AttentionProblem& problem) {
  SWAA_CUDA_CHECK(cudaDeviceSynchronize());
  std::vector<Bf16> out(problem.rows() * problem.shape().heads * problem.shape().head_dim);
  SWAA_CUDA_CHECK(
      cudaMemcpy(out.data(), problem.out(), out.size() * sizeof(Bf16), cudaMemcpyDeviceToHost));
  return out;
}

bool SameBits(const std::vector<Bf16>& a, const std::vector<Bf16>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(Bf16)) == 0;
}

}  // namespace swaa::kernels::cuda
