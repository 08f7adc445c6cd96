// Operands of the benchmark of matrix products: device memory with random numbers in it.

#ifndef SWAA_BENCH_GPU_LINEAR_OPERANDS_H_
#define SWAA_BENCH_GPU_LINEAR_OPERANDS_H_

#include <cstdint>
#include <cuda_runtime_api.h>

#include "kernels/types.h"

namespace swaa::linear_bench {

// Device memory, freed with the object. Throws CudaError.
class DeviceMemory {
 public:
  explicit DeviceMemory(int64_t bytes);
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  template <typename T>
  T* as() const {
    return static_cast<T*>(memory_);
  }

 private:
  void* memory_ = nullptr;
};

// Uniform numbers in [-bound, bound), written when the call returns.
void FillUniform(kernels::Bf16* out, int64_t count, float bound);

// Divides each row of x [rows, features] by its root mean square, in place: a small kernel as there
// are between the products of a model, a block a row. `dependent`: a programmatic dependent.
void NormalizeRows(kernels::Bf16* x, int64_t rows, int64_t features, cudaStream_t stream,
                   bool dependent);

}  // namespace swaa::linear_bench

#endif  // SWAA_BENCH_GPU_LINEAR_OPERANDS_H_
