// Cuts off streams whose reader takes nothing.

#include "server/generate/slow_reader_watch.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "server/observation/memory_guard.h"

namespace swaa::server {

SlowReaderWatch::SlowReaderWatch(absl::Duration timeout, std::function<absl::Time()> now)
    : timeout_(timeout), now_(std::move(now)), thread_([this] { Watch(); }) {}

SlowReaderWatch::~SlowReaderWatch() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void SlowReaderWatch::Add(const std::shared_ptr<WatchedStream>& stream) {
  {
    std::lock_guard lock(mutex_);
    streams_.emplace(stream.get(), stream);
    if (streams_.size() > 1) return;  // the watch is awake
  }
  changed_.notify_all();
}

void SlowReaderWatch::Remove(const WatchedStream* stream) {
  std::lock_guard lock(mutex_);
  streams_.erase(stream);
}

void SlowReaderWatch::Watch() {
  const auto pause = absl::ToChronoNanoseconds(std::min(timeout_ / 4, absl::Seconds(5)));
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return stopping_ || !streams_.empty(); });
      if (changed_.wait_for(lock, pause, [this] { return stopping_; })) return;
    }
    GuardMemory("a look at slow readers", [this] { Look(); });
  }
}

void SlowReaderWatch::Look() {
  std::vector<std::shared_ptr<WatchedStream>> streams;
  {
    std::lock_guard lock(mutex_);
    streams.reserve(streams_.size());
    for (const auto& [key, weak] : streams_) {
      if (auto stream = weak.lock()) streams.push_back(std::move(stream));
    }
  }
  const absl::Time latest = now_() - timeout_;
  for (const auto& stream : streams) {
    if (stream->WaitingSince() <= latest) stream->CutOff();
  }
}

}  // namespace swaa::server
