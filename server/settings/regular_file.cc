// Small files that somebody else writes.

#include "server/settings/regular_file.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>

#include <sys/stat.h>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "server/settings/values.h"

namespace swaa::server {

absl::StatusOr<RegularFile> ReadRegularFile(const std::string& path, size_t most_bytes) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) return absl::NotFoundError(std::strerror(errno));
  const absl::Cleanup close_it = [fd] { close(fd); };
  struct stat facts = {};
  if (fstat(fd, &facts) != 0) return absl::NotFoundError(std::strerror(errno));
  if (!S_ISREG(facts.st_mode)) return absl::NotFoundError("it is no regular file");
  // One byte more shows that there are more.
  std::string bytes(most_bytes + 1, '\0');
  size_t size = 0;
  while (size < bytes.size()) {
    const ssize_t got = read(fd, bytes.data() + size, bytes.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return absl::NotFoundError(std::strerror(errno));
    if (got == 0) break;
    size += static_cast<size_t>(got);
  }
  if (size > most_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("has more than ", FormatByteSize(static_cast<int64_t>(most_bytes))));
  }
  bytes.resize(size);
  return RegularFile{std::move(bytes), (facts.st_mode & S_IROTH) != 0};
}

}  // namespace swaa::server
