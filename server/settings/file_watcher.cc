// Notices that a file has changed.

#include "server/settings/file_watcher.h"

#include <cstdint>
#include <filesystem>
#include <poll.h>
#include <unistd.h>
#include <utility>

#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace swaa::server {
namespace {

// What the wake descriptor's sum says: stops weigh more than all triggers together.
constexpr uint64_t kTrigger = 1;
constexpr uint64_t kStop = uint64_t{1} << 32;

void Wake(int fd, uint64_t what) {
  SWAA_CHECK_EQ(write(fd, &what, sizeof(what)), static_cast<ssize_t>(sizeof(what)));
}

// Takes what has come; the signature says whether it matters.
void Drain(int inotify_fd) {
  alignas(inotify_event) char events[4096];
  while (read(inotify_fd, events, sizeof(events)) > 0) {
  }
}

}  // namespace

FileWatcher::FileWatcher(const std::string& path, std::function<void(bool)> on_change,
                         absl::Duration patience)
    : path_(path), on_change_(std::move(on_change)), patience_(patience), last_(Signature()) {
  wake_fd_ = eventfd(0, EFD_CLOEXEC);
  SWAA_CHECK(wake_fd_ >= 0) << "no file descriptor is left";
  inotify_fd_ = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
  if (inotify_fd_ >= 0) {
    const std::filesystem::path folder = std::filesystem::path(path_).parent_path();
    // Not IN_MODIFY: a file that is still being written is not read.
    inotify_add_watch(inotify_fd_, folder.empty() ? "." : folder.c_str(),
                      IN_CLOSE_WRITE | IN_MOVED_TO);
  }
  thread_ = std::thread([this] { Watch(); });
}

FileWatcher::~FileWatcher() {
  Wake(wake_fd_, kStop);
  thread_.join();
  if (inotify_fd_ >= 0) close(inotify_fd_);
  close(wake_fd_);
}

void FileWatcher::Trigger() { Wake(wake_fd_, kTrigger); }

std::string FileWatcher::Signature() const {
  struct stat facts;
  if (stat(path_.c_str(), &facts) != 0) return "";
  return absl::StrCat(facts.st_dev, ":", facts.st_ino, ":", facts.st_size, ":",
                      facts.st_mtim.tv_sec, ".", facts.st_mtim.tv_nsec);
}

void FileWatcher::Watch() {
  for (;;) {
    pollfd fds[2] = {{wake_fd_, POLLIN, 0}, {inotify_fd_, POLLIN, 0}};
    if (poll(fds, 2, static_cast<int>(absl::ToInt64Milliseconds(patience_))) < 0) continue;
    uint64_t woken = 0;
    if (fds[0].revents != 0 && read(wake_fd_, &woken, sizeof(woken)) != sizeof(woken)) continue;
    if (woken >= kStop) return;
    if (fds[1].revents != 0) Drain(inotify_fd_);
    const std::string now = Signature();
    const bool changed = !now.empty() && now != last_;
    if (!now.empty()) last_ = now;
    if (changed || woken > 0) on_change_(woken > 0);
  }
}

}  // namespace swaa::server
