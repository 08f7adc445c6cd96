// The oracle of attention on the GPU.

#include <cmath>

#include "kernels/cuda/cuda_check.h"
#include "tests/gpu/attention_reference.h"
#include "tests/gpu/device_array.h"

namespace swaa::kernels::cuda {
namespace {

using testing::DeviceArray;

constexpr int kThreads = 256, kBlocks = 528;

__device__ double Load(const Bf16* x) {
  return __uint_as_float(static_cast<uint32_t>(x->bits) << 16);
}

// f(a, b) over all threads' values; every thread gets the result.
template <class F>
__device__ double Reduce(double value, double* shared, F&& f) {
  __syncthreads();
  shared[threadIdx.x] = value;
  __syncthreads();
  for (int w = kThreads / 2; w > 0; w /= 2) {
    if (threadIdx.x < w) shared[threadIdx.x] = f(shared[threadIdx.x], shared[threadIdx.x + w]);
    __syncthreads();
  }
  return shared[0];
}

// sums: squares of differences, and of expected values.
__global__ void __launch_bounds__(kThreads)
    Compare(const ReferenceInput in, double* scratch, double* sums) {
  __shared__ double shared[kThreads];
  double* score = scratch + static_cast<int64_t>(blockIdx.x) * in.longest;
  const int dim = in.head_dim, group = in.heads / in.kv_heads;
  const int64_t head_elements = int64_t{kPageTokens} * dim;
  const int64_t page_elements = 2 * in.kv_heads * head_elements;
  double difference = 0, norm = 0;
  for (int64_t r = blockIdx.x; r < in.row_count; r += gridDim.x) {
    const ReferenceRow row = in.rows[r];
    const int32_t* pages =
        in.table.entries +
        (static_cast<int64_t>(row.slot) * in.table.num_layers + in.layer) * in.table.max_pages;
    const int64_t i = row.position, head = row.head / group;
    const bool full = row.span.window == KeySpan::kFull;
    const auto visible = [&](int64_t j) {
      return j <= i && (full || i - j < row.span.window || j < row.span.sinks);
    };
    const auto key = [&](int64_t j, int is_v) {
      return in.pool + pages[j / kPageTokens] * page_elements +
             (is_v * in.kv_heads + head) * head_elements + j % kPageTokens * dim;
    };
    const Bf16* q = in.q + row.row * in.q_stride + row.head * dim;
    double top = -INFINITY;
    for (int64_t j = threadIdx.x; j <= i; j += kThreads) {
      if (!visible(j)) continue;
      const Bf16* k = key(j, 0);
      double dot = 0;
      for (int d = 0; d < dim; ++d) dot += Load(q + d) * Load(k + d);
      score[j] = dot * in.scale;
      top = fmax(top, score[j]);
    }
    top = Reduce(top, shared, [](double a, double b) { return fmax(a, b); });
    double sum = 0;
    for (int64_t j = threadIdx.x; j <= i; j += kThreads) {
      if (!visible(j)) continue;
      score[j] = exp(score[j] - top);
      sum += score[j];
    }
    sum = Reduce(sum, shared, [](double a, double b) { return a + b; });
    // A thread sums one dimension over every parts-th key.
    const int parts = kThreads / dim, d = threadIdx.x % dim, part = threadIdx.x / dim;
    double value = 0;
    for (int64_t j = part; j <= i && part < parts; j += parts)
      if (visible(j)) value += score[j] * Load(key(j, 1) + d);
    __syncthreads();
    shared[threadIdx.x] = value;
    __syncthreads();
    if (part == 0) {
      for (int p = 1; p < parts; ++p) value += shared[p * dim + d];
      const double expected = value / sum;
      const double got =
          Load(in.out + (static_cast<int64_t>(row.row) * in.heads + row.head) * dim + d);
      difference += (got - expected) * (got - expected);
      norm += expected * expected;
    }
  }
  difference = Reduce(difference, shared, [](double a, double b) { return a + b; });
  norm = Reduce(norm, shared, [](double a, double b) { return a + b; });
  if (threadIdx.x == 0) {
    atomicAdd(&sums[0], difference);
    atomicAdd(&sums[1], norm);
  }
}

}  // namespace

double CompareWithReference(const ReferenceInput& input) {
  DeviceArray<double> scratch(int64_t{kBlocks} * input.longest);
  DeviceArray<double> sums(std::vector<double>{0, 0});
  Compare<<<kBlocks, kThreads>>>(input, scratch.data(), sums.data());
  SWAA_CUDA_CHECK_LAUNCH();
  SWAA_CUDA_CHECK(cudaDeviceSynchronize());
  const std::vector<double> result = sums.Get();
  return std::sqrt(result[0] / result[1]);
}

}  // namespace swaa::kernels::cuda
