// Exposures as lines of JSON, for platforms that analyse experiments in a warehouse.

#ifndef SWAA_SERVER_EXPERIMENTS_STORAGE_EXPOSURE_LOG_H_
#define SWAA_SERVER_EXPERIMENTS_STORAGE_EXPOSURE_LOG_H_

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace swaa::server {

// A unit got an arm.
struct Exposure {
  int64_t at_ms = 0;  // Unix milliseconds
  std::string experiment_id;
  std::string variation_id;  // the arm's name
  uint64_t unit_key = 0;
  uint64_t revision = 0;
  std::string request_id;
};

// {"timestamp":"2026-01-31T09:15:00.123Z","experiment_id":…,"variation_id":…,"unit_key":…,
// "revision":…,"request_id":…} and a newline; keys and revisions as 16 hexadecimal digits, which no
// reader of JSON rounds.
std::string ExposureLine(const Exposure& exposure);

// Appends to a file on a thread of its own. A file that was moved away or removed, as by logrotate,
// is begun anew. Lines are whole: what does not fit on the disk is dropped and counted. Not synced:
// a power loss may take the last seconds. Thread-safe.
class ExposureLog {
 public:
  // PERMISSION_DENIED or NOT_FOUND where the file cannot be written.
  static absl::StatusOr<std::unique_ptr<ExposureLog>> Open(const std::string& path,
                                                           size_t max_waiting = 65536);
  // Writes what waits, then closes.
  ~ExposureLog();
  ExposureLog(const ExposureLog&) = delete;
  ExposureLog& operator=(const ExposureLog&) = delete;

  // Never waits for the disk.
  void Write(Exposure exposure);

  // Of those that waited when there was no more room, or that could not be written.
  int64_t dropped() const;

 private:
  ExposureLog(const std::string& path, size_t max_waiting, int fd);
  void Run();
  // Appends all or nothing.
  absl::Status Append(const std::string& lines);
  // Opens the file again where another one, or none, has its name.
  void FollowRotation();

  const std::string path_;
  const size_t max_waiting_;
  int fd_;  // the writer's
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Exposure> waiting_ ABSL_GUARDED_BY(mutex_);
  int64_t dropped_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread writer_;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_EXPERIMENTS_STORAGE_EXPOSURE_LOG_H_
