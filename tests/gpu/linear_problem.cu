// Random operands and the oracle, on the device: a model's output layer is too large for the host.

#include <cmath>
#include <cuda_runtime.h>
#include <limits>

#include "kernels/cuda/cuda_check.h"
#include "tests/gpu/linear_problem.h"

namespace swaa::linear_testing {
namespace {

using kernels::Bf16;
using kernels::DataType;
using kernels::cuda::LinearArguments;

constexpr int kThreads = 256;
constexpr int64_t kGuardBytes = 4096;

__device__ float Uniform(uint64_t seed, uint64_t i) {
  uint64_t z = (seed + 1) * 0x9e3779b97f4a7c15u + i * 0xd1342543de82ef95u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  z ^= z >> 31;
  return static_cast<float>(z >> 40) * 0x1p-23f - 1.0f;
}

__device__ double Value(uint32_t float_bits) { return __uint_as_float(float_bits); }
__device__ double Value(Bf16 v) { return Value(static_cast<uint32_t>(v.bits) << 16); }
__device__ void Assign(float& out, float value) { out = value; }
__device__ void Assign(Bf16& out, float value) {
  const uint32_t bits = __float_as_uint(value);
  out.bits = static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

template <typename T>
__global__ void UniformKernel(T* out, int64_t columns, int64_t stride, int64_t count, float bound,
                              uint64_t seed) {
  const int64_t step = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += step) {
    Assign(out[i / columns * stride + i % columns], bound * Uniform(seed, i));
  }
}

template <typename T>
void Fill(T* out, int64_t columns, int64_t stride, int64_t rows, float bound, uint64_t seed) {
  UniformKernel<<<2048, kThreads>>>(out, columns, stride, rows * columns, bound, seed);
  SWAA_CUDA_CHECK_LAUNCH();
}

__device__ double Product(const LinearArguments& a, int64_t row, int64_t feature) {
  const Bf16* w = a.weight + feature * a.in_features;
  const Bf16* x = a.x + row * a.x_stride;
  double sum = 0;
  for (int64_t i = 0; i < a.in_features; i += 8) {
    const uint4 w8 = *reinterpret_cast<const uint4*>(w + i);
    const uint4 x8 = *reinterpret_cast<const uint4*>(x + i);
    const uint32_t w_pairs[] = {w8.x, w8.y, w8.z, w8.w};
    const uint32_t x_pairs[] = {x8.x, x8.y, x8.z, x8.w};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      sum += Value(w_pairs[j] << 16) * Value(x_pairs[j] << 16);
      sum += Value(w_pairs[j] & 0xffff0000u) * Value(x_pairs[j] & 0xffff0000u);
    }
  }
  return a.bias != nullptr ? sum + a.bias[feature] : sum;
}

// sums[0] += |out - reference|^2, sums[1] += |reference|^2
__global__ void ErrorKernel(LinearArguments a, int64_t width, double* sums) {
  double error = 0;
  double norm = 0;
  const int64_t step = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < a.rows * width; i += step) {
    const int64_t row = i / width;
    const int64_t feature = i % width;
    double reference = Product(a, row, feature);
    if (a.silu_mul) reference *= Product(a, row, width + feature) / (1 + exp(-reference));
    const double value = a.out_type == DataType::kF32 ? static_cast<const float*>(a.out)[i]
                                                      : Value(static_cast<const Bf16*>(a.out)[i]);
    error += (value - reference) * (value - reference);
    norm += reference * reference;
  }
  atomicAdd(sums, error);
  atomicAdd(sums + 1, norm);
}

}  // namespace

DeviceMemory::DeviceMemory(int64_t bytes) : bytes_(bytes) {
  SWAA_CUDA_CHECK(cudaMalloc(&memory_, bytes));
  Poison();
}

DeviceMemory::~DeviceMemory() { cudaFree(memory_); }

void DeviceMemory::Poison() {
  SWAA_CUDA_CHECK(cudaMemset(memory_, 0xff, bytes_));
  SWAA_CUDA_CHECK(cudaDeviceSynchronize());
}

std::vector<uint8_t> DeviceMemory::Download() const {
  std::vector<uint8_t> bytes(bytes_);
  SWAA_CUDA_CHECK(cudaDeviceSynchronize());
  SWAA_CUDA_CHECK(cudaMemcpy(bytes.data(), memory_, bytes_, cudaMemcpyDeviceToHost));
  return bytes;
}

LinearProblem::LinearProblem(const LinearProblemOptions& options)
    : options_(options),
      weight_(options.out_features * options.in_features * 2 + kGuardBytes),
      x_(options.rows * (options.in_features + options.x_gap) * 2 + kGuardBytes),
      bias_(options.out_features * 4 + kGuardBytes),
      out_(options.rows * options.out_features * 4 + kGuardBytes) {
  arguments_.weight = weight_.as<Bf16>();
  arguments_.out_features = options.out_features;
  arguments_.in_features = options.in_features;
  arguments_.x = x_.as<Bf16>();
  arguments_.x_stride = options.in_features + options.x_gap;
  arguments_.bias = options.bias ? bias_.as<float>() : nullptr;
  arguments_.out = out_.as<void>();
  arguments_.out_type = options.out_type;
  arguments_.rows = options.rows;
  arguments_.silu_mul = options.silu_mul;
  const auto bound = static_cast<float>(std::sqrt(3.0 / static_cast<double>(options.in_features)));
  FillUniform(weight_.as<Bf16>(), options.out_features * options.in_features, bound, options.seed);
  Fill(x_.as<Bf16>(), options.in_features, arguments_.x_stride, options.rows, 1.7f,
       options.seed + 1);
  FillUniform(bias_.as<float>(), options.out_features, 1.0f, options.seed + 2);
  SWAA_CUDA_CHECK(cudaDeviceSynchronize());
}

int64_t LinearProblem::out_row_bytes() const {
  const int64_t width = options_.silu_mul ? options_.out_features / 2 : options_.out_features;
  return width * kernels::SizeOf(options_.out_type);
}

std::vector<uint8_t> LinearProblem::Out() const {
  std::vector<uint8_t> bytes = out_.Download();
  bytes.resize(options_.rows * out_row_bytes());
  return bytes;
}

double LinearProblem::Error() const {
  const std::vector<uint8_t> bytes = out_.Download();
  for (size_t i = options_.rows * out_row_bytes(); i < bytes.size(); ++i) {
    if (bytes[i] != 0xff) return std::numeric_limits<double>::infinity();
  }
  DeviceMemory sums(2 * sizeof(double));
  SWAA_CUDA_CHECK(cudaMemset(sums.as<void>(), 0, 2 * sizeof(double)));
  const int64_t width = out_row_bytes() / kernels::SizeOf(options_.out_type);
  ErrorKernel<<<2048, kThreads>>>(arguments_, width, sums.as<double>());
  SWAA_CUDA_CHECK_LAUNCH();
  SWAA_CUDA_CHECK(cudaDeviceSynchronize());
  double host[2];
  SWAA_CUDA_CHECK(cudaMemcpy(host, sums.as<void>(), sizeof(host), cudaMemcpyDeviceToHost));
  const double error = std::sqrt(host[0] / host[1]);
  return std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
}

void FillUniform(Bf16* out, int64_t count, float bound, uint64_t seed) {
  Fill(out, count, count, 1, bound, seed);
}

void FillUniform(float* out, int64_t count, float bound, uint64_t seed) {
  Fill(out, count, count, 1, bound, seed);
}

}  // namespace swaa::linear_testing
