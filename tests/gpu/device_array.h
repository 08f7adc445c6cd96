// Tests and benchmarks on the GPU: an array in device memory, freed with the object.

#ifndef SWAA_TESTS_GPU_DEVICE_ARRAY_H_
#define SWAA_TESTS_GPU_DEVICE_ARRAY_H_

#include <cstdint>
#include <cuda_runtime_api.h>
#include <utility>
#include <vector>

#include "kernels/cuda/cuda_check.h"

namespace swaa::kernels::cuda {

template <class T>
class DeviceArray {
 public:
  DeviceArray() = default;
  explicit DeviceArray(int64_t size) : size_(size) {
    if (size > 0) SWAA_CUDA_CHECK(cudaMalloc(reinterpret_cast<void**>(&data_), size * sizeof(T)));
  }
  explicit DeviceArray(const std::vector<T>& values)
      : DeviceArray(static_cast<int64_t>(values.size())) {
    Upload(values);
  }
  DeviceArray(DeviceArray&& other) noexcept { swap(other); }
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    swap(other);
    return *this;
  }
  ~DeviceArray() { cudaFree(data_); }

  T* data() const { return data_; }
  int64_t size() const { return size_; }
  void Upload(const std::vector<T>& values) {
    SWAA_CUDA_CHECK(
        cudaMemcpy(data_, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  std::vector<T> Download() const {
    std::vector<T> values(size_);
    SWAA_CUDA_CHECK(cudaMemcpy(values.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }
  // Sets every byte.
  void Fill(int byte) const { SWAA_CUDA_CHECK(cudaMemset(data_, byte, size_ * sizeof(T))); }

 private:
  void swap(DeviceArray& other) {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }

  T* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace swaa::kernels::cuda

#endif  // SWAA_TESTS_GPU_DEVICE_ARRAY_H_
