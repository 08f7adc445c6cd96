// Notices that a file has changed.

#ifndef SWAA_SERVER_SETTINGS_FILE_WATCHER_H_
#define SWAA_SERVER_SETTINGS_FILE_WATCHER_H_

#include <functional>
#include <set>
#include <string>
#include <thread>

#include "absl/time/time.h"

namespace swaa::server {

// Calls back on a thread of its own, one call at a time, once a change is whole. Where the kernel
// tells of changes (inotify, on the file's folder) that is when a writer closes the file or another
// one is renamed to its place or to that of a link on the way to it, as editors and Kubernetes do.
// Else, as on a network file system or behind a link into another folder, it is when the file has
// been the same for `patience`, after at most twice that.
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
  // Names in the file's folder that decide what the path leads to: its own, and those of links.
  std::set<std::string> NamesOnTheWay() const;
  // Takes what the kernel tells; whether a change is complete.
  bool TakeEvents();
  // Whether nobody writes to it and it is as it was when last polled, but not as it was read.
  bool Settled(const std::string& now);
  void Watch();
  void Look(bool events, bool poll_is_due, bool triggered);

  const std::string path_;
  const std::function<void(bool)> on_change_;
  const absl::Duration patience_;
  std::string last_;      // as it was when on_change was called for it
  std::string polled_;    // as it was at the last poll
  bool writing_ = false;  // somebody has written and not closed
  int inotify_fd_ = -1;   // -1: the kernel has none left; patience it is
  int wake_fd_ = -1;
  std::thread thread_;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_SETTINGS_FILE_WATCHER_H_
