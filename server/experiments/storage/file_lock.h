// A lock that one process holds on a file's name.

#ifndef SWAA_SERVER_EXPERIMENTS_STORAGE_FILE_LOCK_H_
#define SWAA_SERVER_EXPERIMENTS_STORAGE_FILE_LOCK_H_

#include <string>

#include "absl/status/statusor.h"

namespace swaa::server {

// Held until it goes out of scope or the process ends, however it ends. The lock is on PATH.lock,
// which stays: SQLite loses its own locks when anybody in the process closes the file itself.
class FileLock {
 public:
  // Holds nothing.
  FileLock() = default;
  // FAILED_PRECONDITION where another one holds it; PERMISSION_DENIED where the file cannot be
  // made.
  static absl::StatusOr<FileLock> Take(const std::string& path);
  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&& other) noexcept;
  ~FileLock();

 private:
  int fd_ = -1;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_EXPERIMENTS_STORAGE_FILE_LOCK_H_
