// Thin wrappers over PTX of Hopper (sm_90; wgmma and moving registers sm_90a): mbarrier, bulk
// tensor copies, clusters, warpgroup products.

#ifndef SWAA_KERNELS_CUDA_HOPPER_PTX_CUH_
#define SWAA_KERNELS_CUDA_HOPPER_PTX_CUH_

#include <cstdint>
#include <cuda.h>

namespace swaa::kernels::cuda::ptx {

// ---- mbarrier ----

__device__ __forceinline__ void InitBarrier(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// Makes barriers just initialised known to the copy engine.
__device__ __forceinline__ void FenceBarrierInit() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
// Arrives and expects so many bytes of bulk copies.
__device__ __forceinline__ void ArriveAndExpect(uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void Arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// Waits until the phase of this parity has completed; a fresh barrier has completed parity 1.
__device__ __forceinline__ void WaitForPhase(uint32_t barrier, uint32_t parity) {
  uint32_t done = 0;
  while (done == 0) {
    asm volatile(
        "{\n.reg .pred p;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
        "selp.u32 %0, 1, 0, p;\n}"
        : "=r"(done)
        : "r"(barrier), "r"(parity)
        : "memory");
  }
}

// ---- bulk tensor copies: a box of a matrix into shared memory, counted by a barrier there ----

// L2 policies, as createpolicy makes them.
inline constexpr uint64_t kEvictFirst = 0x12F0000000000000ull;
inline constexpr uint64_t kEvictLast = 0x14F0000000000000ull;

// A map is read when it is first used, unless it was asked for before.
__device__ __forceinline__ void PrefetchMap(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}
__device__ __forceinline__ void CopyBox(uint32_t to, const CUtensorMap& map, int x, int y, int z,
                                        int w, uint32_t barrier, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      ".L2::cache_hint [%0], [%1, {%3, %4, %5, %6}], [%2], %7;" ::"r"(to),
      "l"(&map), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(w), "l"(policy)
      : "memory");
}
__device__ __forceinline__ void CopyBox(uint32_t to, const CUtensorMap& map, int x, int y, int z,
                                        uint32_t barrier, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      ".L2::cache_hint [%0], [%1, {%2, %3, %4}], [%5], %6;" ::"r"(to),
      "l"(&map), "r"(x), "r"(y), "r"(z), "r"(barrier), "l"(policy)
      : "memory");
}

__device__ __forceinline__ void CopyBox(uint32_t to, const CUtensorMap& map, int x, int y,
                                        uint32_t barrier, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      ".L2::cache_hint [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to),
      "l"(&map), "r"(x), "r"(y), "r"(barrier), "l"(policy)
      : "memory");
}

__device__ __forceinline__ void CopyBox(uint32_t to, const CUtensorMap& map, int x, int y,
                                        uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%2, %3}], [%4];" ::"r"(to),
      "l"(&map), "r"(x), "r"(y), "r"(barrier)
      : "memory");
}

// Lets the copy engine write where this thread has stored, once it is told that it may.
__device__ __forceinline__ void FenceSharedForCopies() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// ---- clusters ----

// Stores to where `to` is in the shared memory of the cluster's block of that rank, and tells the
// barrier there, which is at `barrier` in each of them, that 16 bytes have come.
__device__ __forceinline__ void StoreAsync(uint32_t to, const float (&v)[4], uint32_t barrier,
                                           uint32_t rank) {
  asm volatile(
      "{\n.reg .u32 there, barrier;\n"
      "mapa.shared::cluster.u32 there, %0, %6;\n"
      "mapa.shared::cluster.u32 barrier, %5, %6;\n"
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [there], "
      "{%1, %2, %3, %4}, [barrier];\n}" ::"r"(to),
      "f"(v[0]), "f"(v[1]), "f"(v[2]), "f"(v[3]), "r"(barrier), "r"(rank)
      : "memory");
}

__device__ __forceinline__ void LoadShared(float (&v)[4], uint32_t from) {
  asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(v[0]), "=f"(v[1]), "=f"(v[2]), "=f"(v[3])
               : "r"(from)
               : "memory");
}

// All threads of the cluster's blocks; what is written before Arrive is seen after Wait.
__device__ __forceinline__ void ClusterArrive() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
__device__ __forceinline__ void ClusterWait() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// ---- wgmma ----

template <int kRegisters>
__device__ __forceinline__ void RegistersUp() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void RegistersDown() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
__device__ __forceinline__ void WarpgroupFence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void WarpgroupCommit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kPending = 0>
__device__ __forceinline__ void WarpgroupWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// Keeps the compiler from moving uses of accumulators over the asynchronous products.
template <int kCount>
__device__ __forceinline__ void FenceRegisters(float (&r)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(r[i])::"memory");
}

// Shared-memory operand in the 128-byte swizzle. lead: bytes between 64-element blocks of the
// contiguous dimension (only read for a transposed operand); groups of 8 rows lie 1024 bytes apart.
__device__ __forceinline__ uint64_t SwizzledMatrix(uint32_t address, uint32_t lead = 16) {
  return (static_cast<uint64_t>(address & 0x3ffff) >> 4) |
         (static_cast<uint64_t>(lead >> 4) << 16) | (64ull << 32) | (1ull << 62);
}

#define SWAA_ACCUMULATORS8(d, i)                                                              \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define SWAA_ACCUMULATORS32(d)                                                   \
  SWAA_ACCUMULATORS8(d, 0), SWAA_ACCUMULATORS8(d, 8), SWAA_ACCUMULATORS8(d, 16), \
      SWAA_ACCUMULATORS8(d, 24)
#define SWAA_ACCUMULATORS64(d)                                                  \
  SWAA_ACCUMULATORS32(d), SWAA_ACCUMULATORS8(d, 32), SWAA_ACCUMULATORS8(d, 40), \
      SWAA_ACCUMULATORS8(d, 48), SWAA_ACCUMULATORS8(d, 56)
#define SWAA_OPERANDS32                                                                            \
  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25," \
  "%26,%27,%28,%29,%30,%31"
#define SWAA_OPERANDS64                                                                        \
  SWAA_OPERANDS32                                                                              \
  ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%" \
  "54,%55,%56,%57,%58,%59,%60,%61,%62,%63"

// d (+)= A B^T: A [64, 16] and B [128, 16] in shared memory, both contiguous along the 16.
template <bool kAccumulate>
__device__ __forceinline__ void WarpgroupMultiply(float (&d)[64], uint64_t a, uint64_t b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, "
      "0;\nwgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" SWAA_OPERANDS64
      "}, %64, %65, p, 1, 1, 0, 0;\n}\n"
      : SWAA_ACCUMULATORS64(d)
      : "l"(a), "l"(b), "n"(kAccumulate ? 1 : 0));
}
// The same for 64 rows of B.
template <bool kAccumulate>
__device__ __forceinline__ void WarpgroupMultiply(float (&d)[32], uint64_t a, uint64_t b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %34, "
      "0;\nwgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" SWAA_OPERANDS32
      "}, %32, %33, p, 1, 1, 0, 0;\n}\n"
      : SWAA_ACCUMULATORS32(d)
      : "l"(a), "l"(b), "n"(kAccumulate ? 1 : 0));
}
// d += A B: A [64, 16] in registers, B [16, 128] in shared memory, contiguous along the 128.
__device__ __forceinline__ void WarpgroupMultiplyAdd(float (&d)[64], const uint32_t* a,
                                                     uint64_t b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, "
      "0;\nwgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" SWAA_OPERANDS64
      "}, {%64,%65,%66,%67}, %68, p, 1, 1, 1;\n}\n"
      : SWAA_ACCUMULATORS64(d)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
// The same for 64 columns of B.
__device__ __forceinline__ void WarpgroupMultiplyAdd(float (&d)[32], const uint32_t* a,
                                                     uint64_t b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, "
      "0;\nwgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" SWAA_OPERANDS32
      "}, {%32,%33,%34,%35}, %36, p, 1, 1, 1;\n}\n"
      : SWAA_ACCUMULATORS32(d)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

}  // namespace swaa::kernels::cuda::ptx

#endif  // SWAA_KERNELS_CUDA_HOPPER_PTX_CUH_
