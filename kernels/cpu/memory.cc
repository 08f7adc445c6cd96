// Memory of the CPU backend.

#include "kernels/cpu/memory.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <memory>
#include <string>

#include <sys/mman.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"

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

// The number after `key` in a file of "key value" lines; -1: none.
int64_t ValueOf(const char* path, const std::string& key) {
  std::ifstream file(path);
  std::string word;
  int64_t value = 0;
  while (file >> word) {
    if (word == key && file >> value) return value;
  }
  return -1;
}

// The only number in a file; -1: none ("max" means no limit).
int64_t NumberIn(const char* path) {
  std::ifstream file(path);
  int64_t value = 0;
  return file >> value ? value : -1;
}

int64_t CgroupAvailable(const char* limit_path, const char* usage_path, const char* stat_path,
                        const char* file_cache_key) {
  const int64_t limit = NumberIn(limit_path);
  const int64_t usage = NumberIn(usage_path);
  if (limit < 0 || usage < 0) return std::numeric_limits<int64_t>::max();
  const int64_t cache = std::max<int64_t>(0, ValueOf(stat_path, file_cache_key));
  return std::max<int64_t>(0, limit - usage + cache);
}

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
  int64_t available = std::numeric_limits<int64_t>::max();
  const int64_t kib = ValueOf("/proc/meminfo", "MemAvailable:");
  if (kib >= 0) available = kib * 1024;
  available = std::min(available,
                       CgroupAvailable("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current",
                                       "/sys/fs/cgroup/memory.stat", "inactive_file"));
  return std::min(available,
                  CgroupAvailable("/sys/fs/cgroup/memory/memory.limit_in_bytes",
                                  "/sys/fs/cgroup/memory/memory.usage_in_bytes",
                                  "/sys/fs/cgroup/memory/memory.stat", "total_inactive_file"));
}

}  // namespace swaa::kernels::cpu
