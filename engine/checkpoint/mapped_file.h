// A file mapped read-only into memory.

#ifndef SWAA_ENGINE_CHECKPOINT_MAPPED_FILE_H_
#define SWAA_ENGINE_CHECKPOINT_MAPPED_FILE_H_

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace swaa {

// Immutable; any thread. Pages are read from the disk when they are first touched. The file must
// not be truncated while it is mapped: the system answers a read past its new end with SIGBUS.
class MappedFile {
 public:
  // NOT_FOUND: no such file. INVALID_ARGUMENT: empty, not a regular file, or what a download leaves
  // in place of one: a git-lfs pointer, an HTML page. PERMISSION_DENIED and others as the system
  // reports them.
  static absl::StatusOr<std::shared_ptr<const MappedFile>> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  // At least one byte.
  std::span<const std::byte> bytes() const { return bytes_; }
  std::string_view text() const {
    return {reinterpret_cast<const char*>(bytes_.data()), bytes_.size()};
  }

 private:
  MappedFile(std::string path, std::span<const std::byte> bytes)
      : path_(std::move(path)), bytes_(bytes) {}

  std::string path_;
  std::span<const std::byte> bytes_;
};

}  // namespace swaa

#endif  // SWAA_ENGINE_CHECKPOINT_MAPPED_FILE_H_
