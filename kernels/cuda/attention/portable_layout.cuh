// Attention on any GPU since Ampere: how a page's 64 rows of head_dim lie in shared memory, and how
// they come there (cp.async).

#ifndef SWAA_KERNELS_CUDA_ATTENTION_PORTABLE_LAYOUT_CUH_
#define SWAA_KERNELS_CUDA_ATTENTION_PORTABLE_LAYOUT_CUH_

#include <cstdint>

#include "kernels/cuda/ptx.cuh"
#include "kernels/types.h"

namespace swaa::kernels::cuda {

// Eight rows' chunks of 16 bytes lie in different banks: rows of 128 and 256 bytes are swizzled,
// rows of 192 bytes padded by one chunk.
template <int kDim>
struct PortableLayout {
  static constexpr int kChunks = kDim / 8;
  static constexpr bool kSwizzled = kDim % 64 == 0;
  static constexpr int kRowBytes = kDim * 2 + (kSwizzled ? 0 : 16);

  __device__ static __forceinline__ uint32_t Offset(int row, int chunk) {
    return row * kRowBytes + ((kSwizzled ? chunk ^ (row & 7) : chunk) << 4);
  }
  // The address of `chunks` (even) chunks after an address of chunk 0 or 1 of a row, in an array
  // aligned to a row: one instruction and no register, where Offset would take one of each.
  __device__ static __forceinline__ uint32_t Later(uint32_t address, int chunks) {
    return kSwizzled ? address ^ (chunks << 4) : address + (chunks << 4);
  }
};

// Copies kRows rows of head_dim elements, dense in memory, to rows first_row ... of `to`.
// kThreads threads take part; thread is this one's number. Not waited for, not committed.
template <int kDim, int kRows, int kThreads>
__device__ __forceinline__ void CopyRows(uint32_t to, int first_row, const Bf16* from, int thread) {
  using Layout = PortableLayout<kDim>;
  static_assert(kRows * Layout::kChunks % kThreads == 0);
  constexpr int kCopies = kRows * Layout::kChunks / kThreads;
  const Bf16* mine = from + thread * 8;  // the others are constants away
  if constexpr (kThreads % (8 * Layout::kChunks) == 0) {
    // Whole groups of 8 rows at a time: one address, from which all others are constants away.
    const uint32_t first =
        to + Layout::Offset(first_row + thread / Layout::kChunks, thread % Layout::kChunks);
#pragma unroll
    for (int i = 0; i < kCopies; ++i)
      ptx::CopyAsyncLine(first + i * (kThreads / Layout::kChunks) * Layout::kRowBytes,
                         mine + i * kThreads * 8, true);
  } else {
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const int at = i * kThreads + thread, row = at / Layout::kChunks;
      ptx::CopyAsyncLine(to + Layout::Offset(first_row + row, at % Layout::kChunks),
                         mine + i * kThreads * 8, true);
    }
  }
}

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_ATTENTION_PORTABLE_LAYOUT_CUH_
