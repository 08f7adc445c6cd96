// Server room: cuts off streams whose reader takes nothing.

#include "server/slow_reader_watch.h"

#include <algorithm>
#include <vector>

namespace swaa::server {

SlowReaderWatch::SlowReaderWatch(absl::Duration timeout)
    : timeout_(timeout), thread_([this] { Watch(); }) {}

SlowReaderWatch::~SlowReaderWatch() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
}

void SlowReaderWatch::Add(const std::shared_ptr<WatchedStream>& stream) {
  absl::MutexLock lock(&mutex_);
  streams_.emplace(stream.get(), stream);
}

void SlowReaderWatch::Remove(const WatchedStream* stream) {
  absl::MutexLock lock(&mutex_);
  streams_.erase(stream);
}

void SlowReaderWatch::Watch() {
  const absl::Duration pause = std::min(timeout_ / 4, absl::Seconds(5));
  for (;;) {
    std::vector<std::shared_ptr<WatchedStream>> streams;
    {
      absl::MutexLock lock(&mutex_);
      auto needed = [this] { return stopping_ || !streams_.empty(); };
      mutex_.Await(absl::Condition(&needed));
      mutex_.AwaitWithTimeout(absl::Condition(&stopping_), pause);
      if (stopping_) return;
      for (const auto& [key, weak] : streams_) {
        if (auto stream = weak.lock()) streams.push_back(std::move(stream));
      }
    }
    const absl::Time latest = absl::Now() - timeout_;
    for (const auto& stream : streams) {
      if (stream->WaitingSince() <= latest) stream->CutOff();
    }
  }
}

}  // namespace swaa::server
