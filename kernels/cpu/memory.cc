// Memory of the CPU backend.

#include "kernels/cpu/memory.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <memory>
#include <optional>

#include <sys/mman.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/cpu/cgroup.h"

namespace swaa::kernels::cpu {
namespace {

constexpr int64_t kHugePageBytes = int64_t{2} << 20;
constexpr int64_t kSlabBytes = int64_t{32} << 20;

class MappedBuffer : public Buffer {
 public:
  MappedBuffer(std::byte* data, int64_t bytes, void* map, size_t map_bytes)
      : data_(data), bytes_(bytes), map_(map), map_bytes_(map_bytes) {}
  ~MappedBuffer() override { munmap(map_, map_bytes_); }
  std::byte* data() const override { return data_; }
  int64_t bytes() const override { return bytes_; }

 private:
  std::byte* data_;
  int64_t bytes_;
  void* map_;
  size_t map_bytes_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Buffer>> AllocateBuffer(int64_t bytes) {
  if (bytes < 0) return absl::InvalidArgumentError(absl::StrCat("a buffer of ", bytes, " bytes"));
  // Large buffers begin at a huge page: the first one counts too.
  const bool huge = bytes >= kHugePageBytes;
  const size_t map_bytes =
      static_cast<size_t>(std::max<int64_t>(bytes, 64)) + (huge ? kHugePageBytes : 0);
  void* map = mmap(nullptr, map_bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (map == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the system refused ", bytes, " bytes of memory"));
  }
  void* begin = map;
  if (huge) {
    size_t room = map_bytes;
    begin = std::align(kHugePageBytes, static_cast<size_t>(bytes), begin, room);
    SWAA_CHECK(begin != nullptr) << bytes << " bytes in " << map_bytes;
    madvise(begin, bytes, MADV_HUGEPAGE);  // A wish, no more.
  }
  return std::make_unique<MappedBuffer>(static_cast<std::byte*>(begin), bytes, map, map_bytes);
}

absl::StatusOr<std::shared_ptr<std::byte>> SliceAllocator::Allocate(int64_t bytes) {
  const int64_t rounded = (bytes + 63) / 64 * 64;
  if (slab_ == nullptr || slab_->bytes() - used_ < rounded) {
    SWAA_ASSIGN_OR_RETURN(slab_, AllocateBuffer(std::max(rounded, kSlabBytes)));
    used_ = 0;
  }
  std::shared_ptr<std::byte> slice(slab_, slab_->data() + used_);
  used_ += rounded;
  return slice;
}

int64_t AvailableMemoryBytes() {
  constexpr int64_t kUnknown = std::numeric_limits<int64_t>::max();
  const std::optional<int64_t> kib = NamedFigure("/proc/meminfo", "MemAvailable:");
  const int64_t system = kib.has_value() ? *kib * 1024 : kUnknown;
  return std::min(system, CgroupAvailableBytes().value_or(kUnknown));
}

}  // namespace swaa::kernels::cpu
