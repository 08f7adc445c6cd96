// Memory of the CPU backend: large, zeroed, lazily touched; and how much of it the machine can
// give.

#ifndef SWAA_KERNELS_CPU_MEMORY_H_
#define SWAA_KERNELS_CPU_MEMORY_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/operators.h"

namespace swaa::kernels::cpu {

// Anonymous zeroed memory, aligned to a page. Physical memory is taken when it is first written, in
// huge pages where the system has them. RESOURCE_EXHAUSTED if the address space cannot be had.
absl::StatusOr<std::unique_ptr<Buffer>> AllocateBuffer(int64_t bytes);

// Hands out slices of large buffers, so that small matrices lie in huge pages too: reading a weight
// of 4 KiB pages takes half as long again. A slice keeps its buffer alive. One thread at a time.
class SliceAllocator {
 public:
  // Zeroed, aligned to 64 bytes. RESOURCE_EXHAUSTED as AllocateBuffer.
  absl::StatusOr<std::shared_ptr<std::byte>> Allocate(int64_t bytes);

 private:
  std::shared_ptr<Buffer> slab_;
  int64_t used_ = 0;
};

// Bytes that this process can still touch: what the system says is available, and what the memory
// limit of its cgroup leaves (file caches count as free in both).
int64_t AvailableMemoryBytes();

}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_MEMORY_H_
