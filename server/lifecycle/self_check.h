// Whether new clients still reach the server, asked as a client would.

#ifndef SWAA_SERVER_LIFECYCLE_SELF_CHECK_H_
#define SWAA_SERVER_LIFECYCLE_SELF_CHECK_H_

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"

namespace swaa::server {

// Probes again and again on a thread of its own.
class SelfCheck {
 public:
  struct Options {
    absl::Duration interval = absl::Seconds(5);
    absl::Duration dead_after = absl::Seconds(60);
  };

  // All are called on the check's thread. `probe` OK or RESOURCE_EXHAUSTED: the server is reached.
  // `on_change(false)` after two failures in a row, `on_change(true)` at the next success;
  // `on_dead` once, when nothing has succeeded for dead_after.
  SelfCheck(const Options& options, std::function<absl::Status()> probe,
            std::function<void(bool reached)> on_change, std::function<void()> on_dead);
  // Joins; no call comes afterwards.
  ~SelfCheck();

 private:
  void Run();
  // False: stop.
  bool Pause();

  const Options options_;
  const std::function<absl::Status()> probe_;
  const std::function<void(bool)> on_change_;
  const std::function<void()> on_dead_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_LIFECYCLE_SELF_CHECK_H_
