// Bias, norms of heads, rotary embedding and the write to the pages, in one pass over qkv.

#include "base/check.h"
#include "kernels/cuda/elementwise/elementwise.h"
#include "kernels/cuda/elementwise/launch.cuh"
#include "kernels/cuda/elementwise/vector8.cuh"

namespace swaa::kernels::cuda {
namespace {

constexpr int kThreads = 256;

struct Arguments {
  RopeAndStoreParams params;
  int first_head;      // of a row of qkv: 0, or `heads` where q is not wanted
  uint32_t row_heads;  // heads of a row that are worked on
};

// A thread's part of a head: 8 elements of the first half and the 8 that they are rotated with.
struct Part {
  Vector8 low, high;
};

// kGroup lanes share a head; those beyond head_dim / 16 only take part in the sums.
template <int kGroup>
__device__ __forceinline__ float GroupSum(float value) {
#pragma unroll
  for (int offset = kGroup / 2; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(~0u, value, offset);
  }
  return value;
}

template <int kGroup>
__device__ __forceinline__ void Norm(Part& part, const float* weight, int at, int half, bool active,
                                     float epsilon) {
  float squares = 0;
  if (active) {
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      squares += part.low.v[j] * part.low.v[j] + part.high.v[j] * part.high.v[j];
    }
  }
  const float mean = GroupSum<kGroup>(squares) / static_cast<float>(2 * half);
  if (!active) return;
  const float inverse = rsqrtf(mean + epsilon);
  const Vector8 low = Load8(weight + at), high = Load8(weight + half + at);
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    part.low.v[j] *= inverse * low.v[j];
    part.high.v[j] *= inverse * high.v[j];
  }
}

__device__ __forceinline__ void Rotate(Part& part, const float* cos_sin, int at, int half) {
  const Vector8 cosine = Load8(cos_sin + at), sine = Load8(cos_sin + half + at);
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    const float a = part.low.v[j], b = part.high.v[j];
    part.low.v[j] = a * cosine.v[j] - b * sine.v[j];
    part.high.v[j] = b * cosine.v[j] + a * sine.v[j];
  }
}

// Where a K (plane 0) or V (plane 1) head of the row lies in its page.
__device__ __forceinline__ Bf16* InPage(const RopeAndStoreParams& p, int64_t row, int slot,
                                        int plane, int kv_head) {
  const int position = p.positions[row];
  const int page =
      p.page_table
          .entries[(int64_t{slot} * p.page_table.num_layers + p.layer) * p.page_table.max_pages +
                   position / kPageTokens];
  Bf16* base = reinterpret_cast<Bf16*>(p.pages.base + page * p.pages.page_bytes);
  return base + ((int64_t{plane} * p.kv_heads + kv_head) * kPageTokens + position % kPageTokens) *
                    p.head_dim;
}

template <int kGroup>
__global__ void __launch_bounds__(kThreads)
    RopeAndStoreKernel(const __grid_constant__ Arguments a) {
  BeginKernel();
  const RopeAndStoreParams& p = a.params;
  const uint32_t unit = (blockIdx.x * kThreads + threadIdx.x) / kGroup;
  const int64_t row = unit / a.row_heads;
  const int head = a.first_head + static_cast<int>(unit % a.row_heads);
  const int half = p.head_dim / 2, at = threadIdx.x % kGroup * 8;
  // A whole warp passes the sums, whoever has something to do.
  const int slot = row < p.rows ? p.slots[row] : -1;
  const bool active = slot >= 0 && at < half;
  const bool is_query = head < p.heads, is_value = head >= p.heads + p.kv_heads;

  Part part{};
  Bf16* x = nullptr;
  if (active) {
    const int64_t offset = int64_t{head} * p.head_dim;
    x = p.qkv + row * (p.heads + 2 * p.kv_heads) * p.head_dim + offset;
    part = {Load8(x + at), Load8(x + half + at)};
    if (p.bias != nullptr) {
      const Vector8 low = Load8(p.bias + offset + at), high = Load8(p.bias + offset + half + at);
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        part.low.v[j] += low.v[j];
        part.high.v[j] += high.v[j];
      }
    }
  }
  if (p.q_norm != nullptr || p.k_norm != nullptr) {
    const float* weight = is_query ? p.q_norm : p.k_norm;
    Norm<kGroup>(part, weight, at, half, active && !is_value && weight != nullptr, p.norm_epsilon);
  }
  if (!active) return;
  if (!is_value) Rotate(part, p.cos_sin + row * p.head_dim, at, half);
  Bf16* to = x;
  if (!is_query) {
    const int kv_head = head - p.heads;
    to = InPage(p, row, slot, is_value ? 1 : 0, is_value ? kv_head - p.kv_heads : kv_head);
  }
  Store8(to + at, part.low);
  Store8(to + half + at, part.high);
}

}  // namespace

void RopeAndStore(const RopeAndStoreParams& params, const Launch& launch) {
  SWAA_CHECK(params.head_dim % 16 == 0 && params.head_dim > 0 && params.head_dim <= 256)
      << params.head_dim;
  SWAA_CHECK_EQ(params.pages.page_bytes,
                int64_t{4} * params.kv_heads * kPageTokens * params.head_dim);
  if (params.rows == 0) return;
  const int first_head = params.rotate_queries ? 0 : params.heads;
  const Arguments arguments{params, first_head,
                            static_cast<uint32_t>(params.heads + 2 * params.kv_heads - first_head)};
  const int lanes = params.head_dim / 16;
  // Threads are counted in 32 bits.
  SWAA_CHECK_LT(params.rows * int64_t{arguments.row_heads} * 16, int64_t{1} << 32) << params.rows;
  const auto run = [&](auto kernel, int group) {
    const int64_t threads = params.rows * int64_t{arguments.row_heads} * group;
    const int64_t blocks = (threads + kThreads - 1) / kThreads;
    LaunchKernel(kernel, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), launch, arguments);
  };
  if (lanes <= 4) {
    run(RopeAndStoreKernel<4>, 4);
  } else if (lanes <= 8) {
    run(RopeAndStoreKernel<8>, 8);
  } else {
    run(RopeAndStoreKernel<16>, 16);
  }
}

}  // namespace swaa::kernels::cuda
