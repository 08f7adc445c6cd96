// Cuts off streams whose reader takes nothing.

#ifndef SWAA_SERVER_GENERATE_SLOW_READER_WATCH_H_
#define SWAA_SERVER_GENERATE_SLOW_READER_WATCH_H_

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "server/generate/steady_time.h"

namespace swaa::server {

// A stream, as the watch sees it.
class WatchedStream {
 public:
  virtual ~WatchedStream() = default;
  // The time (SteadyNow) since which one write has been waiting for the reader; InfiniteFuture:
  // none is.
  virtual absl::Time WaitingSince() const = 0;
  // The reader has had its time.
  virtual void CutOff() = 0;
};

// One thread for all streams. It looks a few times per timeout while there is a stream, and sleeps
// while there is none, so that writing costs a stream no more than a clock. Thread-safe.
class SlowReaderWatch {
 public:
  // `now`: SteadyNow, or a test's.
  explicit SlowReaderWatch(absl::Duration timeout, std::function<absl::Time()> now = &SteadyNow);
  ~SlowReaderWatch();

  void Add(const std::shared_ptr<WatchedStream>& stream);
  void Remove(const WatchedStream* stream);

  absl::Duration timeout() const { return timeout_; }

 private:
  void Watch();
  void Look();

  const absl::Duration timeout_;
  const std::function<absl::Time()> now_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<const WatchedStream*, std::weak_ptr<WatchedStream>> streams_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_GENERATE_SLOW_READER_WATCH_H_
