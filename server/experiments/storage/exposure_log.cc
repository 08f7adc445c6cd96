// Exposures as lines of JSON.

#include "server/experiments/storage/exposure_log.h"

#include <cerrno>
#include <fcntl.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include <nlohmann/json.hpp>
#include <sys/stat.h>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "server/experiments/storage/out_of_memory.h"

namespace swaa::server {
namespace {

int OpenToAppend(const std::string& path) {
  return open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

// A process that ended in the middle of a line leaves one that no other may be joined to.
bool EndsInMidLine(int fd) {
  struct stat facts;
  if (fstat(fd, &facts) != 0 || facts.st_size == 0) return false;
  char last = '\n';
  return pread(fd, &last, 1, facts.st_size - 1) == 1 && last != '\n';
}

}  // namespace

std::string ExposureLine(const Exposure& exposure) {
  const nlohmann::ordered_json line = {
      {"timestamp", absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::FromUnixMillis(exposure.at_ms),
                                     absl::UTCTimeZone())},
      {"experiment_id", exposure.experiment_id},
      {"variation_id", exposure.variation_id},
      {"unit_key", absl::StrCat(absl::Hex(exposure.unit_key, absl::kZeroPad16))},
      {"revision", absl::StrCat(absl::Hex(exposure.revision, absl::kZeroPad16))},
      {"request_id", exposure.request_id},
  };
  return line.dump(-1, ' ', /*ensure_ascii=*/true, nlohmann::json::error_handler_t::replace) + "\n";
}

absl::StatusOr<std::unique_ptr<ExposureLog>> ExposureLog::Open(const std::string& path,
                                                               size_t max_waiting) {
  const int fd = OpenToAppend(path);
  if (fd < 0) {
    const int error = errno;
    return absl::Status(
        error == ENOENT ? absl::StatusCode::kNotFound : absl::StatusCode::kPermissionDenied,
        absl::StrCat(path, ": ", std::generic_category().message(error),
                     "; name a file that the server's user can write"));
  }
  return std::unique_ptr<ExposureLog>(new ExposureLog(path, max_waiting, fd));
}

ExposureLog::ExposureLog(const std::string& path, size_t max_waiting, int fd)
    : path_(path), max_waiting_(max_waiting), fd_(fd) {
  writer_ = std::thread([this] { Run(); });
}

ExposureLog::~ExposureLog() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  writer_.join();
  if (fd_ >= 0) close(fd_);
}

void ExposureLog::Write(Exposure exposure) {
  const std::lock_guard lock(mutex_);
  if (waiting_.size() >= max_waiting_) {
    ++dropped_;
    return;
  }
  waiting_.push_back(std::move(exposure));
  if (waiting_.size() == 1) changed_.notify_all();
}

int64_t ExposureLog::dropped() const {
  const std::lock_guard lock(mutex_);
  return dropped_;
}

void ExposureLog::FollowRotation() {
  struct stat named;
  struct stat opened;
  const bool same = fd_ >= 0 && stat(path_.c_str(), &named) == 0 && fstat(fd_, &opened) == 0 &&
                    named.st_ino == opened.st_ino && named.st_dev == opened.st_dev;
  if (same) return;
  if (fd_ >= 0) close(fd_);
  fd_ = OpenToAppend(path_);
}

absl::Status ExposureLog::Append(const std::string& lines) {
  struct stat before;
  const auto failed = [this] {
    return absl::UnavailableError(absl::StrCat(path_, ": cannot be appended to"));
  };
  if (fd_ < 0 || fstat(fd_, &before) != 0) return failed();
  const std::string text = EndsInMidLine(fd_) ? "\n" + lines : lines;
  size_t written = 0;
  while (written < text.size()) {
    const ssize_t size = write(fd_, text.data() + written, text.size() - written);
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) break;
    written += static_cast<size_t>(size);
  }
  if (written == text.size()) return absl::OkStatus();
  // Where this fails too, the next line begins on a new one all the same.
  static_cast<void>(!ftruncate(fd_, before.st_size));
  return failed();
}

void ExposureLog::Run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
    if (waiting_.empty()) return;
    std::deque<Exposure> batch;
    std::swap(batch, waiting_);
    lock.unlock();
    FollowRotation();
    const absl::Status written = CatchOutOfMemory([&]() -> absl::Status {
      std::string lines;
      for (const Exposure& exposure : batch) lines += ExposureLine(exposure);
      return Append(lines);
    });
    lock.lock();
    if (!written.ok()) dropped_ += static_cast<int64_t>(batch.size());
  }
}

}  // namespace swaa::server
