// SIGTERM, SIGINT and SIGHUP, read by a thread of their own instead of handlers.

#ifndef SWAA_SERVER_LIFECYCLE_SHUTDOWN_SIGNALS_H_
#define SWAA_SERVER_LIFECYCLE_SHUTDOWN_SIGNALS_H_

#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"

namespace swaa::server {

// Make it before any other thread: it blocks the signals for all threads that come after. Before
// Await, and from the second signal on, a signal ends the process at once with 128 + its number;
// one that comes within a second of the first is the first, sent twice, as by `timeout` and some
// supervisors. SIGUSR1, SIGUSR2 and SIGALRM are logged and do nothing, SIGPIPE does nothing.
class ShutdownSignals {
 public:
  ShutdownSignals();
  ~ShutdownSignals();
  ShutdownSignals(const ShutdownSignals&) = delete;
  ShutdownSignals& operator=(const ShutdownSignals&) = delete;

  // Waits for the first of SIGTERM and SIGINT; its number, or 0 after End.
  int Await();
  // As a first signal, from inside the process. From any thread.
  void End();

  // What SIGHUP does from now on, on the signals' thread; it must not block. One that came before
  // the first call is served now. After the return the previous handler is not running.
  void OnHangup(std::function<void()> handler);

 private:
  void Watch();
  void OnSignal(int signal);

  int signal_fd_ = -1;
  int stop_fd_ = -1;
  std::mutex mutex_;
  std::condition_variable came_;
  std::function<void()> on_hangup_ ABSL_GUARDED_BY(mutex_);
  bool awaited_ ABSL_GUARDED_BY(mutex_) = false;
  bool hung_up_ ABSL_GUARDED_BY(mutex_) = false;  // before there was a handler
  std::optional<int> first_ ABSL_GUARDED_BY(mutex_);
  absl::Time first_at_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_LIFECYCLE_SHUTDOWN_SIGNALS_H_
