// Notices that a file has changed.

#ifndef SWAA_SERVER_SETTINGS_FILE_WATCHER_H_
#define SWAA_SERVER_SETTINGS_FILE_WATCHER_H_

#include <functional>
#include <string>
#include <thread>

#include "absl/time/time.h"

namespace swaa::server {

// Calls back on a thread of its own, one call at a time. A change is seen at once where the kernel
// tells of it (inotify, on the file's folder: editors and Kubernetes replace files by renaming),
// else, as on a network file system or behind a link into another folder, within `patience`.
class FileWatcher {
 public:
  // `on_change(true)` after Trigger, `on_change(false)` when the file is another one than before or
  // was written to. A file that is gone for a moment is no change.
  FileWatcher(const std::string& path, std::function<void(bool triggered)> on_change,
              absl::Duration patience = absl::Seconds(5));
  // Joins; no call comes afterwards.
  ~FileWatcher();
  FileWatcher(const FileWatcher&) = delete;
  FileWatcher& operator=(const FileWatcher&) = delete;

  // Asks for a call whether or not the file has changed. Thread-safe.
  void Trigger();

 private:
  // Which file, of what size, written when; empty if there is none.
  std::string Signature() const;
  void Watch();

  const std::string path_;
  const std::function<void(bool)> on_change_;
  const absl::Duration patience_;
  std::string last_;
  int inotify_fd_ = -1;  // -1: the kernel has none left; patience it is
  int wake_fd_ = -1;
  std::thread thread_;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_SETTINGS_FILE_WATCHER_H_
