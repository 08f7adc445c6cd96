// Maps a file into memory, read-only.

#include "engine/checkpoint/mapped_file.h"

#include <cerrno>
#include <fcntl.h>
#include <string>
#include <string_view>
#include <unistd.h>
#include <utility>

#include <sys/mman.h>
#include <sys/stat.h>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace swaa {
namespace {

// Closes a descriptor when it goes out of scope; a mapping outlives it.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

// What a download may leave under a file's name.
absl::Status CheckDownloaded(std::string_view text, const std::string& path) {
  if (absl::StartsWith(std::string(text.substr(0, 64)), "version https://git-lfs.")) {
    return absl::InvalidArgumentError(absl::StrCat(
        path,
        ": a git-lfs pointer, not the file that it stands for; fetch that with git lfs pull"));
  }
  const size_t begin = text.find_first_not_of(" \t\r\n");
  const std::string head(begin == std::string_view::npos ? "" : text.substr(begin, 64));
  if (absl::StartsWithIgnoreCase(head, "<!doctype html") ||
      absl::StartsWithIgnoreCase(head, "<html")) {
    return absl::InvalidArgumentError(
        absl::StrCat(path,
                     ": an HTML page, not a model's file: the download was answered with a "
                     "page (an error, or a sign-in); download it again"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<const MappedFile>> MappedFile::Open(const std::string& path) {
  // O_NONBLOCK: opening a FIFO must not wait for a writer before fstat can refuse it.
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) return absl::ErrnoToStatus(errno, absl::StrCat(path, ": cannot be opened"));
  struct stat info = {};
  if (fstat(file.get(), &info) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat(path, ": cannot be examined"));
  }
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a regular file"));
  }
  if (info.st_size <= 0) return absl::InvalidArgumentError(absl::StrCat(path, ": file is empty"));
  const size_t size = static_cast<size_t>(info.st_size);
  void* address = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (address == MAP_FAILED) {
    return absl::ErrnoToStatus(errno, absl::StrCat(path, ": cannot be mapped"));
  }
  std::shared_ptr<const MappedFile> mapped(
      new MappedFile(path, {static_cast<const std::byte*>(address), size}));
  if (absl::Status status = CheckDownloaded(mapped->text(), path); !status.ok()) return status;
  return mapped;
}

MappedFile::~MappedFile() { munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size()); }

}  // namespace swaa
