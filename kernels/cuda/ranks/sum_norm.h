// Kernels that bring together what lies on several GPUs.

#ifndef SWAA_KERNELS_CUDA_RANKS_SUM_NORM_H_
#define SWAA_KERNELS_CUDA_RANKS_SUM_NORM_H_

#include <cstdint>

#include "kernels/cuda/elementwise/launch.h"
#include "kernels/types.h"

namespace swaa::kernels::cuda {

inline constexpr int kMostPeers = 8;

// A buffer of each rank, all within the reach of this one.
struct RankBuffers {
  int32_t rank = 0;
  int32_t size = 0;
  const Bf16* buffers[kMostPeers] = {};
  // Of each rank, in its memory, as SumSignals has them.
  uint32_t* signals[kMostPeers] = {};
  const uint32_t* aborted = nullptr;  // in host memory; not 0: nobody is to wait any more
};

// What a rank has for the others to write to, zeroed before the first sum: the number of the last
// sum for which each peer has said to be ready, its own count of sums, a counter of blocks; from
// kBoxes on, for every rank, the deltas that it sends: for odd sums, then for even ones.
struct SumSignals {
  static constexpr int kSums = kMostPeers;
  static constexpr int kBlocks = kMostPeers + 1;
  static constexpr int kBoxes = 64;
  // Of a delta that is sent and not fetched: beyond it, that its bytes double costs more than the
  // way there and back.
  static constexpr int64_t kMostSent = int64_t{64} << 10;

  static constexpr int64_t Bytes(int32_t ranks) {
    return kBoxes * int64_t{sizeof(uint32_t)} + int64_t{2} * ranks * 2 * kMostSent * sizeof(Bf16);
  }
};

// Whether SumNorm knows so many ranks.
bool SumNormServes(int32_t ranks);

// residual[r, :] += sum over ranks of delta[r, :], in f32 and in the order of ranks, so that all
// get the same bits; then out as AddNorm has it. Every rank launches it with the same sizes. Large
// deltas are read where they lie, as soon as all ranks have begun: one may be overwritten only when
// one more sum, of other deltas, has begun on the same rank.
struct SumNormParams {
  RankBuffers deltas;             // [rows, hidden]
  float* residual = nullptr;      // [rows, hidden]
  const float* weight = nullptr;  // [hidden]
  Bf16* out = nullptr;            // [rows, hidden]
  int64_t rows = 0;
  int64_t hidden = 0;  // multiple of 8, at most 16384
  float epsilon = 0;
};
void SumNorm(const SumNormParams& params, const Launch& launch);

// all[r, c] = what rank c / most has for row r: gathered is [ranks][rows, its columns], each rank's
// part rows * most elements behind the one before.
struct PlaceColumnsParams {
  const float* gathered = nullptr;
  float* all = nullptr;  // [rows, columns]
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t most = 0;  // columns of every rank but the last ones
};
void PlaceColumns(const PlaceColumnsParams& params, const Launch& launch);

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_RANKS_SUM_NORM_H_
