// Prefill attention for Hopper: a consumer warpgroup. Inside it Q K^T of the next key tile and P V
// of this one are in flight together; P stays in registers. Keys are visited from the diagonal
// down, so that running maxima are finite from the first tile on.
//
// What keeps it fast, none of which the compiler reports: no branch while products are in flight;
// accumulators are arrays of their own, not halves of one; and every condition in the persistent
// loop is uniform in a way that the compiler can prove (votes), because one that it cannot prove
// takes stage counters and operand descriptors of the whole loop out of the uniform registers,
// which costs a tenth of the speed.

#ifndef SWAA_KERNELS_CUDA_ATTENTION_HOPPER_PREFILL_CONSUME_CUH_
#define SWAA_KERNELS_CUDA_ATTENTION_HOPPER_PREFILL_CONSUME_CUH_

#include <type_traits>

#include "kernels/cuda/attention/hopper_prefill.cuh"
#include "kernels/cuda/attention/hopper_prefill_output.cuh"
#include "kernels/cuda/attention/hopper_softmax.cuh"

namespace swaa::kernels::cuda::hopper {

// S = Q K^T; the operands lie as blocks of 64 columns, of which only those below head_dim are
// multiplied.
template <class T, int N>
__device__ __forceinline__ void Scores(float (&s)[N], uint64_t q, uint64_t k) {
#pragma unroll
  for (int i = 0; i < T::kHeadDim / 16; ++i) {
    const int q_offset = (i >> 2) * (T::kQueryBlockBytes >> 4) + (i & 3) * 2,
              k_offset = (i >> 2) * (T::kKeyBlockBytes >> 4) + (i & 3) * 2;
    if (i == 0)
      ptx::WarpgroupMultiply<false>(s, q + q_offset, k + k_offset);
    else
      ptx::WarpgroupMultiply<true>(s, q + q_offset, k + k_offset);
  }
}

// O += P V; V lies page by page, each as blocks of 64 columns.
template <class T>
__device__ __forceinline__ void Values(float (&o)[T::kColumns / 2], const uint32_t (&p)[32],
                                       uint64_t v) {
#pragma unroll
  for (int i = 0; i < 8; ++i)
    ptx::WarpgroupMultiplyAdd(
        o, p + 4 * i,
        v + (i >> 2) * (T::kColumnBlocks * kPageBlockBytes >> 4) + (i & 3) * (16 * 128 >> 4));
}

// Longer than a function should be: its lambdas share the accumulators, which must stay where the
// compiler sees all products that use them.
template <class T>
__device__ void Consume(const PrefillParams& p, Shared<T>& sm, int group) {
  const int lane = threadIdx.x & 31, row = group * 64 + ((threadIdx.x >> 5) & 3) * 16;
  int k_stage = 0, k_parity = 0, v_stage = 0, v_parity = 0;
  float o[T::kColumns / 2], m[2], l[2], scale[2] = {1.f, 1.f};
  uint32_t probabilities[32];
  auto turn = [&] {
    if (T::kPingPong) ptx::NamedSync<256>(1 + group);
  };
  auto pass = [&] {
    if (T::kPingPong) ptx::NamedArrive<256>(1 + (group + 1) % T::kGroups);
  };
  auto wait_k = [&] { ptx::WaitForPhase(ptx::SharedAddress(&sm.k_full[k_stage]), k_parity); };
  auto wait_v = [&] { ptx::WaitForPhase(ptx::SharedAddress(&sm.v_full[v_stage]), v_parity); };
  auto free_k = [&] {
    if (lane == 0) ptx::Arrive(ptx::SharedAddress(&sm.k_empty[k_stage]));
    if (++k_stage == T::kStages) k_stage = 0, k_parity ^= 1;
  };
  auto free_v = [&] {
    if (lane == 0) ptx::Arrive(ptx::SharedAddress(&sm.v_empty[v_stage]));
    if (++v_stage == T::kStages) v_stage = 0, v_parity ^= 1;
  };
  const uint64_t k_base = ptx::SwizzledMatrix(ptx::SharedAddress(sm.k[0])),
                 v_base = ptx::SwizzledMatrix(ptx::SharedAddress(sm.v[0]), kPageBlockBytes);
  const float c = p.scale_log2;
  if (T::kPingPong && group == T::kGroups - 1) ptx::NamedArrive<256>(1);
  for (int round = 0;; ++round) {
    const int slot = round & 1;
    ptx::WaitForPhase(ptx::SharedAddress(&sm.q_full[slot]), (round >> 1) & 1);
    const Walk walk = sm.items[slot].walk;
    if (walk.count == 0) break;
    const uint64_t q = ptx::SwizzledMatrix(ptx::SharedAddress(sm.q[slot]) + group * 64 * 128);
    const int base = walk.position + group * 64, thread_row = walk.position + row + (lane >> 2);
    // What differs by the columns of a tile; the rare kinds are branches off the common one.
    auto by = [&](Columns columns, auto&& f) {
      if (__any_sync(~0u, columns == kAll))
        f(std::integral_constant<Columns, kAll>());
      else if (__any_sync(~0u, columns == kLow))
        f(std::integral_constant<Columns, kLow>());
      else
        f(std::integral_constant<Columns, kHigh>());
    };
    auto columns_of = [&](int i) { return Needed(walk, walk.Tile(i), base); };
    auto scores = [&](auto& s, int first) {
      ptx::FenceRegisters(s);
      ptx::WarpgroupFence();
      Scores<T>(s, q, k_base + k_stage * (T::kTileBytes >> 4) + first * (128 >> 4));
      ptx::WarpgroupCommit();
    };
    auto values = [&] {
      ptx::FenceRegisters(o);
      ptx::WarpgroupFence();
      Values<T>(o, probabilities, v_base + v_stage * (T::kTileBytes >> 4));
      ptx::WarpgroupCommit();
    };
#pragma unroll
    for (int i = 0; i < T::kColumns / 2; ++i) o[i] = 0;
    int i = 0;
    if constexpr (T::kRows != kKeys) {  // key tiles that lie right of all of this warpgroup's rows
      for (; i + 1 < min(walk.count, walk.window_tiles - walk.begin) &&
             __any_sync(~0u, walk.Tile(i) > (base + 63) / kKeys);
           ++i) {
        turn();  // every warpgroup takes as many turns
        pass();
        wait_k();
        free_k();
        wait_v();
        free_v();
      }
    }
    wait_k();
    by(columns_of(i), [&](auto columns) {
      constexpr int kFirst = columns() == kHigh ? 64 : 0;
      float s[columns() == kAll ? 64 : 32];
      scores(s, kFirst);
      ptx::WarpgroupWait<0>();
      ptx::FenceRegisters(s);
      free_k();
      Mask(s, walk, walk.Tile(i) * kKeys + kFirst, base, thread_row, lane);
      Softmax<true>(s, m, l, scale, c);
      Pack<kFirst>(s, probabilities);
    });
    auto step = [&](auto columns) {
      constexpr int kFirst = columns() == kHigh ? 64 : 0;
      float s[columns() == kAll ? 64 : 32];
      wait_k();
      turn();
      scores(s, kFirst);
      wait_v();
      values();
      pass();
      ptx::WarpgroupWait<1>();
      ptx::FenceRegisters(s);
      free_k();
      Mask(s, walk, walk.Tile(i) * kKeys + kFirst, base, thread_row, lane);
      const bool rescale = Softmax<false>(s, m, l, scale, c);
      ptx::WarpgroupWait<0>();
      ptx::FenceRegisters(o);
      free_v();
      Pack<kFirst>(s, probabilities);
      if (rescale) Rescale(o, scale);
    };
    // Beside the first only the last window tile and the last sink tile can be half needed: the
    // loop of whole tiles has no branch for them.
    const int last_window = min(walk.window_tiles - walk.begin, walk.count) - 1;
    for (++i;; ++i) {
      int stop = walk.count;
      if (__any_sync(~0u, i < walk.count && columns_of(walk.count - 1) != kAll))
        stop = walk.count - 1;
      if (__any_sync(~0u, i <= last_window && columns_of(last_window) != kAll)) stop = last_window;
      for (; i < stop; ++i) step(std::integral_constant<Columns, kAll>());
      if (i >= walk.count) break;
      if (__any_sync(~0u, columns_of(i) == kLow))
        step(std::integral_constant<Columns, kLow>());
      else
        step(std::integral_constant<Columns, kHigh>());
    }
    const Output output = sm.items[slot].output;
    __syncwarp();
    if (lane == 0) ptx::Arrive(ptx::SharedAddress(&sm.q_empty[slot]));
    wait_v();
    values();
    ptx::WarpgroupWait<0>();
    ptx::FenceRegisters(o);
    free_v();
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      l[h] += __shfl_xor_sync(~0u, l[h], 1);
      l[h] += __shfl_xor_sync(~0u, l[h], 2);
    }
    bool write = output.parts == 1;
    if (!write) write = Merge<T>(o, m, l, output, p, sm.is_last, group);
    if (__any_sync(~0u, write)) Store<T>(o, l, output, p, sm.o + row * T::kColumns, row, lane);
  }
}

}  // namespace swaa::kernels::cuda::hopper

#endif  // SWAA_KERNELS_CUDA_ATTENTION_HOPPER_PREFILL_CONSUME_CUH_
