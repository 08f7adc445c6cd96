// A matrix product on the GPU with random operands, its oracle in double precision, and poison
// around everything that must not be touched.

#ifndef SWAA_TESTS_GPU_LINEAR_PROBLEM_H_
#define SWAA_TESTS_GPU_LINEAR_PROBLEM_H_

#include <cstdint>
#include <cuda_runtime_api.h>
#include <vector>

#include "kernels/cuda/linear/linear_arguments.h"
#include "kernels/types.h"

namespace swaa::linear_testing {

// Device memory filled with bytes 0xff: NaN as bf16 and as f32.
class DeviceMemory {
 public:
  explicit DeviceMemory(int64_t bytes);
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  void Poison();
  std::vector<uint8_t> Download() const;
  template <typename T>
  T* as() const {
    return static_cast<T*>(memory_);
  }

 private:
  void* memory_ = nullptr;
  int64_t bytes_ = 0;
};

struct LinearProblemOptions {
  int64_t out_features = 0;
  int64_t in_features = 0;
  int64_t rows = 0;
  kernels::DataType out_type = kernels::DataType::kBf16;
  bool bias = false;
  bool silu_mul = false;
  int64_t x_gap = 0;  // poisoned elements between rows of x
  uint64_t seed = 0;
};

// Weights, x and bias uniform and of such size that results are about 1.
class LinearProblem {
 public:
  explicit LinearProblem(const LinearProblemOptions& options);

  const kernels::cuda::LinearArguments& arguments() const { return arguments_; }
  int64_t out_row_bytes() const;

  void PoisonOut() { out_.Poison(); }
  // The bytes of out, without the guard behind it.
  std::vector<uint8_t> Out() const;
  // ||out - reference|| / ||reference||; infinite where out holds a NaN or the guard is broken.
  double Error() const;

 private:
  LinearProblemOptions options_;
  kernels::cuda::LinearArguments arguments_;
  DeviceMemory weight_, x_, bias_, out_;
};

// Uniform in [-bound, bound): element i of a sequence that the seed names.
void FillUniform(kernels::Bf16* out, int64_t count, float bound, uint64_t seed);
void FillUniform(float* out, int64_t count, float bound, uint64_t seed);

}  // namespace swaa::linear_testing

#endif  // SWAA_TESTS_GPU_LINEAR_PROBLEM_H_
