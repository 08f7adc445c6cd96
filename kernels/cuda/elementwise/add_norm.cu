// Residual add and RMS norm in one pass: a block a row, the row in registers between its sum and
// its norm.

#include "base/check.h"
#include "kernels/cuda/elementwise/block_sum.cuh"
#include "kernels/cuda/elementwise/elementwise.h"
#include "kernels/cuda/elementwise/launch.cuh"
#include "kernels/cuda/elementwise/vector8.cuh"

namespace swaa::kernels::cuda {
namespace {

constexpr int kMaxThreads = 1024;

struct Arguments {
  void* residual;
  const Bf16* delta;
  const float* weight;
  Bf16* out;
  int vectors;  // of 8 elements, a row
  float scale;  // 1 / hidden
  float epsilon;
};

// kVectors: a thread's share of the row, kVectors * blockDim.x * 8 elements at least.
template <typename Residual, int kVectors, bool kAdd>
__global__ void __launch_bounds__(kMaxThreads) AddNormKernel(const Arguments a) {
  ptx::LaunchDependents();
  Vector8 weight[kVectors];
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const int at = threadIdx.x + i * blockDim.x;
    if (at < a.vectors) weight[i] = Load8(a.weight + at * 8);
  }
  ptx::WaitForPredecessor();
  const int64_t row = int64_t{blockIdx.x} * a.vectors * 8;
  Residual* residual = static_cast<Residual*>(a.residual) + row;
  Vector8 x[kVectors];
  float squares = 0;
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const int at = threadIdx.x + i * blockDim.x;
    if (at >= a.vectors) continue;
    x[i] = Load8(residual + at * 8);
    if constexpr (kAdd) {
      const Vector8 delta = Load8(a.delta + row + at * 8);
#pragma unroll
      for (int j = 0; j < 8; ++j) x[i].v[j] = RoundedTo<Residual>(x[i].v[j] + delta.v[j]);
      Store8(residual + at * 8, x[i]);
    }
#pragma unroll
    for (int j = 0; j < 8; ++j) squares += x[i].v[j] * x[i].v[j];
  }
  const float inverse = rsqrtf(BlockSum(squares) * a.scale + a.epsilon);
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const int at = threadIdx.x + i * blockDim.x;
    if (at >= a.vectors) continue;
    Vector8 out;
#pragma unroll
    for (int j = 0; j < 8; ++j) out.v[j] = x[i].v[j] * inverse * weight[i].v[j];
    Store8(a.out + row + at * 8, out);
  }
}

template <typename Residual, int kVectors>
void LaunchAddNorm(const AddNormParams& params, const Arguments& arguments, int threads,
                   const Launch& launch) {
  const auto kernel = params.delta != nullptr ? AddNormKernel<Residual, kVectors, true>
                                              : AddNormKernel<Residual, kVectors, false>;
  LaunchKernel(kernel, dim3(params.rows), dim3(threads), launch, arguments);
}

template <typename Residual>
void LaunchAddNorm(const AddNormParams& params, const Launch& launch) {
  const auto vectors = static_cast<int>(params.hidden / 8);
  const Arguments arguments{params.residual, params.delta, params.weight,
                            params.out,      vectors,      1 / static_cast<float>(params.hidden),
                            params.epsilon};
  const int threads = std::min(kMaxThreads, (vectors + 31) / 32 * 32);
  if (vectors <= threads) {
    LaunchAddNorm<Residual, 1>(params, arguments, threads, launch);
  } else {
    LaunchAddNorm<Residual, 2>(params, arguments, threads, launch);
  }
}

}  // namespace

void AddNorm(const AddNormParams& params, const Launch& launch) {
  SWAA_CHECK(params.hidden % 8 == 0 && params.hidden > 0 && params.hidden <= 2 * 8 * kMaxThreads)
      << params.hidden;
  if (params.rows == 0) return;
  if (params.residual_type == DataType::kF32) {
    LaunchAddNorm<float>(params, launch);
  } else {
    LaunchAddNorm<Bf16>(params, launch);
  }
}

}  // namespace swaa::kernels::cuda
