// Notices that a file has changed.

#include "server/settings/file_watcher.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <poll.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "server/observation/memory_guard.h"

namespace swaa::server {
namespace {

// What the wake descriptor's sum says: stops weigh more than all triggers together.
constexpr uint64_t kTrigger = 1;
constexpr uint64_t kStop = uint64_t{1} << 32;

void Wake(int fd, uint64_t what) {
  SWAA_CHECK_EQ(write(fd, &what, sizeof(what)), static_cast<ssize_t>(sizeof(what)));
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
    inotify_add_watch(inotify_fd_, folder.empty() ? "." : folder.c_str(),
                      IN_MODIFY | IN_CLOSE_WRITE | IN_MOVED_TO);
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

std::set<std::string> FileWatcher::NamesOnTheWay() const {
  namespace fs = std::filesystem;
  std::set<std::string> names;
  const fs::path folder = fs::path(path_).parent_path();
  fs::path name = fs::path(path_).filename();
  // A link leads on within the folder by its target's first part.
  while (!name.empty() && names.insert(name.string()).second) {
    std::error_code error;
    const fs::path target = fs::read_symlink(folder / name, error);
    if (error || target.is_absolute()) break;
    name = *target.begin();
  }
  return names;
}

bool FileWatcher::TakeEvents() {
  const std::string own = std::filesystem::path(path_).filename().string();
  const std::set<std::string> names = NamesOnTheWay();
  bool complete = false;
  alignas(inotify_event) char buffer[4096];
  for (;;) {
    const ssize_t size = read(inotify_fd_, buffer, sizeof(buffer));
    if (size <= 0) return complete;
    for (ssize_t at = 0; at < size;) {
      const auto* event = reinterpret_cast<const inotify_event*>(buffer + at);
      at += static_cast<ssize_t>(sizeof(inotify_event) + event->len);
      const std::string name = event->len > 0 ? event->name : "";
      if ((event->mask & IN_Q_OVERFLOW) != 0) writing_ = false;  // the poll will tell
      if (!names.contains(name)) continue;
      if ((event->mask & IN_MODIFY) != 0) {
        writing_ = writing_ || name == own;
      } else {
        writing_ = false;
        complete = true;
      }
    }
  }
}

bool FileWatcher::Settled(const std::string& now) {
  const bool same = now == polled_;
  polled_ = now;
  return same && !writing_;
}

void FileWatcher::Watch() {
  using Clock = std::chrono::steady_clock;
  const auto patience = std::chrono::milliseconds(absl::ToInt64Milliseconds(patience_));
  Clock::time_point next_poll = Clock::now() + patience;
  for (;;) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(next_poll - Clock::now()).count();
    pollfd fds[2] = {{wake_fd_, POLLIN, 0}, {inotify_fd_, POLLIN, 0}};
    if (poll(fds, 2, static_cast<int>(std::max<int64_t>(left + 1, 0))) < 0) continue;
    uint64_t woken = 0;
    if (fds[0].revents != 0 && read(wake_fd_, &woken, sizeof(woken)) != sizeof(woken)) continue;
    if (woken >= kStop) return;
    const bool poll_is_due = Clock::now() >= next_poll;
    if (poll_is_due) next_poll = Clock::now() + patience;
    const bool noted = GuardMemory("reading a changed file", [&] {
      Look(/*events=*/fds[1].revents != 0, poll_is_due, /*triggered=*/woken > 0);
    });
    if (!noted) last_.clear();  // a later poll finds it changed
  }
}

void FileWatcher::Look(bool events, bool poll_is_due, bool triggered) {
  bool complete = events && TakeEvents();
  const std::string now = Signature();
  if (poll_is_due) complete = Settled(now) || complete;
  const bool changed = complete && !now.empty() && now != last_;
  if (changed || (triggered && !now.empty())) last_ = now;
  if (changed || triggered) on_change_(triggered);
}

}  // namespace swaa::server
