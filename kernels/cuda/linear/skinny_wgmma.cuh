// Hopper's warpgroup product of a tile in shared memory.

#ifndef SWAA_KERNELS_CUDA_LINEAR_SKINNY_WGMMA_CUH_
#define SWAA_KERNELS_CUDA_LINEAR_SKINNY_WGMMA_CUH_

#include <cstdint>

#include "kernels/cuda/hopper_ptx.cuh"
#include "kernels/cuda/linear/skinny_hopper_grid.h"
#include "kernels/cuda/linear/skinny_tile.cuh"

namespace swaa::kernels::cuda {

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

namespace ptx {

// sums [64, 8 * row tiles] += a [64, 16] * b [8 * row tiles, 16]^T, bf16 operands.
__device__ __forceinline__ void WarpgroupMultiplyAdd(float (&s)[1][4], uint64_t a, uint64_t b) {
  asm volatile(
      "{\n.reg .pred accumulate;\nsetp.ne.b32 accumulate, %6, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3} "
      ", %4, %5, accumulate, 1, 1, 0, 0;\n}"
      : "+f"(s[0][0]), "+f"(s[0][1]), "+f"(s[0][2]), "+f"(s[0][3])
      : "l"(a), "l"(b), "r"(1));
}

__device__ __forceinline__ void WarpgroupMultiplyAdd(float (&s)[2][4], uint64_t a, uint64_t b) {
  asm volatile(
      "{\n.reg .pred accumulate;\nsetp.ne.b32 accumulate, %10, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7} "
      ", %8, %9, accumulate, 1, 1, 0, 0;\n}"
      : "+f"(s[0][0]), "+f"(s[0][1]), "+f"(s[0][2]), "+f"(s[0][3]), "+f"(s[1][0]), "+f"(s[1][1]),
        "+f"(s[1][2]), "+f"(s[1][3])
      : "l"(a), "l"(b), "r"(1));
}

__device__ __forceinline__ void WarpgroupMultiplyAdd(float (&s)[4][4], uint64_t a, uint64_t b) {
  asm volatile(
      "{\n.reg .pred accumulate;\nsetp.ne.b32 accumulate, %18, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15} "
      ", %16, %17, accumulate, 1, 1, 0, 0;\n}"
      : "+f"(s[0][0]), "+f"(s[0][1]), "+f"(s[0][2]), "+f"(s[0][3]), "+f"(s[1][0]), "+f"(s[1][1]),
        "+f"(s[1][2]), "+f"(s[1][3]), "+f"(s[2][0]), "+f"(s[2][1]), "+f"(s[2][2]), "+f"(s[2][3]),
        "+f"(s[3][0]), "+f"(s[3][1]), "+f"(s[3][2]), "+f"(s[3][3])
      : "l"(a), "l"(b), "r"(1));
}

__device__ __forceinline__ void WarpgroupMultiplyAdd(float (&s)[8][4], uint64_t a, uint64_t b) {
  asm volatile(
      "{\n.reg .pred accumulate;\nsetp.ne.b32 accumulate, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, "
      "%18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31} "
      ", %32, %33, accumulate, 1, 1, 0, 0;\n}"
      : "+f"(s[0][0]), "+f"(s[0][1]), "+f"(s[0][2]), "+f"(s[0][3]), "+f"(s[1][0]), "+f"(s[1][1]),
        "+f"(s[1][2]), "+f"(s[1][3]), "+f"(s[2][0]), "+f"(s[2][1]), "+f"(s[2][2]), "+f"(s[2][3]),
        "+f"(s[3][0]), "+f"(s[3][1]), "+f"(s[3][2]), "+f"(s[3][3]), "+f"(s[4][0]), "+f"(s[4][1]),
        "+f"(s[4][2]), "+f"(s[4][3]), "+f"(s[5][0]), "+f"(s[5][1]), "+f"(s[5][2]), "+f"(s[5][3]),
        "+f"(s[6][0]), "+f"(s[6][1]), "+f"(s[6][2]), "+f"(s[6][3]), "+f"(s[7][0]), "+f"(s[7][1]),
        "+f"(s[7][2]), "+f"(s[7][3])
      : "l"(a), "l"(b), "r"(1));
}

}  // namespace ptx

// The product of a tile of weight, after which x lies, by the warpgroup's 64 rows of it; complete
// when it returns. A warp's sums are those of its 16 rows.
template <int kRows>
__device__ __forceinline__ void MultiplyTileByWarpgroup(uint32_t stage, int32_t tile_rows,
                                                        WarpSums<kRows>& sums) {
  constexpr int kRowBytes = kSkinnyBoxColumns * 2;
  const uint32_t warpgroup = threadIdx.x / 128;
  const uint64_t weight = ptx::SwizzledMatrix(stage + warpgroup * 64 * kRowBytes);
  const uint64_t x = ptx::SwizzledMatrix(stage + tile_rows * kRowBytes);
  ptx::WarpgroupFence();
#pragma unroll
  for (int k = 0; k < kSkinnyBoxColumns / 16; ++k) {
    // 32 bytes on, in units of 16: the swizzle is of addresses, not of columns.
    ptx::WarpgroupMultiplyAdd(sums.values, weight + 2 * k, x + 2 * k);
  }
  ptx::WarpgroupCommit();
  ptx::WarpgroupWait();
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_LINEAR_SKINNY_WGMMA_CUH_
