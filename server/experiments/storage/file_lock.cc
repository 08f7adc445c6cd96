// A lock that one process holds on a file's name.

#include "server/experiments/storage/file_lock.h"

#include <cerrno>
#include <fcntl.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include <sys/file.h>

#include "absl/strings/str_cat.h"

namespace swaa::server {

absl::StatusOr<FileLock> FileLock::Take(const std::string& path) {
  FileLock lock;
  const std::string name = path + ".lock";
  lock.fd_ = open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock.fd_ < 0) {
    return absl::PermissionDeniedError(absl::StrCat(name, ": ",
                                                    std::generic_category().message(errno),
                                                    "; let the server's user write in its folder"));
  }
  if (flock(lock.fd_, LOCK_EX | LOCK_NB) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": another server writes to it; give each replica a file of its own"));
  }
  return lock;
}

FileLock::FileLock(FileLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

FileLock& FileLock::operator=(FileLock&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

FileLock::~FileLock() {
  if (fd_ >= 0) close(fd_);
}

}  // namespace swaa::server
