// Work shared out among the OpenMP threads of the CPU backend.

#ifndef SWAA_KERNELS_CPU_PARALLEL_RANGES_H_
#define SWAA_KERNELS_CPU_PARALLEL_RANGES_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <omp.h>

#include "kernels/cpu/region_errors.h"
#include "kernels/cpu/threads.h"

namespace swaa::kernels::cpu {

// Fewer elements than this are not worth waking the other threads for.
inline constexpr int64_t kSerialElements = 8192;

// Chunks that a thread takes of a product, if nothing disturbs it.
inline constexpr int64_t kChunksPerThread = 8;

// body(first, last) over ranges of `count` items, a contiguous one for each of `threads`; in the
// calling thread alone where there is little to do. Throws what a body throws.
template <typename Body>
void ForRanges(int threads, int64_t count, int64_t elements_per_item, const Body& body) {
  PrepareOpenMpThreads(threads);
  if (count <= 1 || threads == 1 || count * elements_per_item < kSerialElements) {
    if (count > 0) body(int64_t{0}, count);
    return;
  }
  RegionErrors errors;
#pragma omp parallel num_threads(threads)
  {
    const int64_t thread = omp_get_thread_num(), all = omp_get_num_threads();
    const int64_t first = count * thread / all, last = count * (thread + 1) / all;
    if (first < last) errors.Run([&] { body(first, last); });
  }
  errors.Rethrow();
}

// What one thread begins with, and where whoever is free takes the next chunk of it.
struct alignas(64) ThreadShare {
  std::atomic<int64_t> next;
  int64_t end;
};
inline constexpr int kMaxThreadShares = 64;

// body(first, last) over chunks of `multiple` items or a multiple of that. Each thread takes those
// of its own share one after the other, as memory is read fastest in order, and then what is left
// of the others', so that a thread whose processor is disturbed holds nobody up. Throws what a body
// throws.
template <typename Body>
void ForChunks(int threads, int64_t count, int64_t multiple, int64_t elements_per_item,
               const Body& body) {
  PrepareOpenMpThreads(threads);
  if (count <= multiple || threads == 1 || count * elements_per_item < kSerialElements) {
    if (count > 0) body(int64_t{0}, count);
    return;
  }
  const int64_t fair = count / (threads * kChunksPerThread);
  const int64_t chunk = std::max(multiple, fair / multiple * multiple);
  const int64_t units = (count + multiple - 1) / multiple;
  const int num_shares = std::min(threads, kMaxThreadShares);
  ThreadShare shares[kMaxThreadShares];
  for (int i = 0; i < num_shares; ++i) {
    shares[i].next.store(units * i / num_shares * multiple, std::memory_order_relaxed);
    shares[i].end = std::min(count, units * (i + 1) / num_shares * multiple);
  }
  RegionErrors errors;
#pragma omp parallel num_threads(threads)
  errors.Run([&] {
    const int own = omp_get_thread_num() % num_shares;
    for (int i = 0; i < num_shares; ++i) {
      ThreadShare& share = shares[(own + i) % num_shares];
      for (int64_t first = share.next.fetch_add(chunk); first < share.end;
           first = share.next.fetch_add(chunk)) {
        body(first, std::min(share.end, first + chunk));
      }
    }
  });
  errors.Rethrow();
}

}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_PARALLEL_RANGES_H_
