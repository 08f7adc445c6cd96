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

// body(first, last) over chunks of `multiple` items or a multiple of that, handed out to whoever is
// free, so that a thread whose processor is disturbed holds nobody up. Throws what a body throws.
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
  std::atomic<int64_t> next = 0;
  RegionErrors errors;
#pragma omp parallel num_threads(threads)
  errors.Run([&] {
    for (int64_t first = next.fetch_add(chunk); first < count; first = next.fetch_add(chunk)) {
      body(first, std::min(count, first + chunk));
    }
  });
  errors.Rethrow();
}

}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_PARALLEL_RANGES_H_
