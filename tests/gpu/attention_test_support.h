// Tests of attention on the GPU: what several of them need.

#ifndef SWAA_TESTS_GPU_ATTENTION_TEST_SUPPORT_H_
#define SWAA_TESTS_GPU_ATTENTION_TEST_SUPPORT_H_

#include <cstdint>
#include <vector>

#include "kernels/cuda/attention/attention.h"
#include "tests/gpu/attention_problem.h"

namespace swaa::kernels::cuda {

// ||out - expected|| / ||expected|| of bf16 inputs, probabilities and outputs stays below it.
inline constexpr double kErrorLimit = 5e-3;

bool DeviceIsHopper();

// SWAA_TEST_SEED, or a random one; printed once.
uint64_t TestSeed();

// Runs the problem's own step: each of the layers twice, comparing all rows, rows of nobody and
// counters.
void ExpectLayersRight(const AttentionProblem& problem, AttentionKernels kernels,
                       const std::vector<int32_t>& layers);

// Waits for the device.
std::vector<Bf16> OutputOf(const AttentionProblem& problem);
bool SameBits(const std::vector<Bf16>& a, const std::vector<Bf16>& b);

}  // namespace swaa::kernels::cuda

#endif  // SWAA_TESTS_GPU_ATTENTION_TEST_SUPPORT_H_
