// Writes lines of the log in a thread of its own, so that whoever reads them delays nobody.

#ifndef SWAA_SERVER_OBSERVATION_LOG_SINK_H_
#define SWAA_SERVER_OBSERVATION_LOG_SINK_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include <spdlog/formatter.h>
#include <spdlog/sinks/sink.h>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"

namespace swaa::server {

// A line waits for the thread that writes it, in the order in which lines came. While `max_bytes`
// wait, as when nobody reads the pipe, lines are lost and counted; a line in their place says how
// many, once the others are written. Thread-safe.
class LogSink final : public spdlog::sinks::sink {
 public:
  // `fd` outlives it, and may block.
  explicit LogSink(int fd, size_t max_bytes = 1 << 20);
  // Blocks until what waits is written.
  ~LogSink() override;

  // Never waits for the reader. bad_alloc: the line is not written; see CountLost.
  void log(const spdlog::details::log_msg& message) override;
  void flush() override {}  // nothing is held back
  void set_pattern(const std::string& pattern) override;
  void set_formatter(std::unique_ptr<spdlog::formatter> formatter) override;

  // A line was lost on its way here.
  void CountLost();
  // Lines lost since the start.
  int64_t lost() const { return lost_; }

  // Waits until all is written, for so long; whether it is. Async-signal-safe.
  bool AwaitWritten(absl::Duration timeout) const;

 private:
  void Run();
  // A line about those that were lost, if there are any; none where its memory is lacking.
  void SayWhatWasLost(std::string* lines) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Lines that the file does not take are lost.
  void WriteLines(const std::string& lines);
  bool WriteLine(const char* line, size_t bytes);

  const int fd_;
  const size_t max_bytes_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::unique_ptr<spdlog::formatter> formatter_ ABSL_GUARDED_BY(mutex_);
  std::string waiting_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::atomic<int64_t> unwritten_bytes_ = 0;  // waiting or being written
  std::atomic<int64_t> unsaid_ = 0;           // lost, and no line says so yet
  std::atomic<int64_t> lost_ = 0;
  std::thread thread_;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_OBSERVATION_LOG_SINK_H_
