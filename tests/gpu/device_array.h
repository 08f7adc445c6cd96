// Arrays on the device for the GPU tests.

#ifndef SWAA_TESTS_GPU_DEVICE_ARRAY_H_
#define SWAA_TESTS_GPU_DEVICE_ARRAY_H_

#include <cstddef>
#include <cuda_runtime_api.h>
#include <span>
#include <utility>
#include <vector>

#include "kernels/cuda/cuda_check.h"

namespace swaa::testing {

// An array of plain values. Copies wait for all that the device does.
template <typename T>
class DeviceArray {
 public:
  DeviceArray() = default;
  // Every byte is `fill`, when it returns: 0xff makes NaN of every float.
  explicit DeviceArray(size_t count, int fill = 0xff) : count_(count) {
    SWAA_CUDA_CHECK(cudaMalloc(&data_, count * sizeof(T) + 16));
    SWAA_CUDA_CHECK(cudaMemset(data_, fill, count * sizeof(T) + 16));
    // The host does not wait for a memset, and neither do the streams of the tests.
    SWAA_CUDA_CHECK(cudaStreamSynchronize(nullptr));
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) { Set(values); }
  DeviceArray(DeviceArray&& other) noexcept { *this = std::move(other); }
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
    return *this;
  }
  ~DeviceArray() { cudaFree(data_); }

  void Set(const std::vector<T>& values) {
    SWAA_CUDA_CHECK(cudaDeviceSynchronize());
    SWAA_CUDA_CHECK(
        cudaMemcpy(data_, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  }

  std::vector<T> Get() const {
    std::vector<T> values(count_);
    SWAA_CUDA_CHECK(cudaDeviceSynchronize());
    SWAA_CUDA_CHECK(cudaMemcpy(values.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }

  T* data() const { return static_cast<T*>(data_); }
  size_t size() const { return count_; }

 private:
  void* data_ = nullptr;
  size_t count_ = 0;
};

// A stream of its own, as steps have one.
class TestStream {
 public:
  TestStream() { SWAA_CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  TestStream(const TestStream&) = delete;
  TestStream& operator=(const TestStream&) = delete;
  ~TestStream() { cudaStreamDestroy(stream_); }

  operator cudaStream_t() const { return stream_; }
  void Wait() const { SWAA_CUDA_CHECK(cudaStreamSynchronize(stream_)); }

 private:
  cudaStream_t stream_ = nullptr;
};

// Compute capability 9.0 and later.
inline bool HasProgrammaticLaunch() {
  int major = 0;
  SWAA_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
  return major >= 9;
}

}  // namespace swaa::testing

#endif  // SWAA_TESTS_GPU_DEVICE_ARRAY_H_
