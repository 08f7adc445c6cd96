// Writes lines of the log in a thread of its own.

#include "server/observation/log_sink.h"

#include <cerrno>
#include <chrono>
#include <csignal>
#include <ctime>
#include <new>
#include <poll.h>
#include <unistd.h>
#include <utility>

#include <spdlog/pattern_formatter.h>

#include "absl/strings/str_cat.h"

namespace swaa::server {

LogSink::LogSink(int fd, size_t max_bytes)
    : fd_(fd), max_bytes_(max_bytes), formatter_(std::make_unique<spdlog::pattern_formatter>()) {
  // Signals are other threads' from its first instruction on.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { Run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

LogSink::~LogSink() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void LogSink::log(const spdlog::details::log_msg& message) {
  {
    std::lock_guard lock(mutex_);
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    const auto bytes = static_cast<int64_t>(line.size());
    // After a lost line come lost lines, until one says so in their place.
    if (unsaid_ > 0 || unwritten_bytes_ + bytes > static_cast<int64_t>(max_bytes_)) {
      ++unsaid_;
      ++lost_;
    } else {
      waiting_.append(line.data(), line.size());
      unwritten_bytes_ += bytes;
    }
  }
  changed_.notify_one();
}

void LogSink::set_pattern(const std::string& pattern) {
  set_formatter(std::make_unique<spdlog::pattern_formatter>(pattern));
}

void LogSink::set_formatter(std::unique_ptr<spdlog::formatter> formatter) {
  std::lock_guard lock(mutex_);
  formatter_ = std::move(formatter);
}

void LogSink::CountLost() {
  {
    std::lock_guard lock(mutex_);
    ++unsaid_;
    ++lost_;
  }
  changed_.notify_one();
}

bool LogSink::AwaitWritten(absl::Duration timeout) const {
  const auto until = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(timeout);
  while (unwritten_bytes_ > 0 || unsaid_ > 0) {
    if (std::chrono::steady_clock::now() > until) return false;
    const timespec pause = {.tv_sec = 0, .tv_nsec = 1000000};
    nanosleep(&pause, nullptr);
  }
  return true;
}

void LogSink::Run() {
  for (;;) {
    std::string lines;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return stopping_ || !waiting_.empty() || unsaid_ > 0; });
      if (waiting_.empty() && unsaid_ == 0) return;
      lines.swap(waiting_);
      SayWhatWasLost(&lines);
    }
    WriteLines(lines);
  }
}

void LogSink::SayWhatWasLost(std::string* lines) {
  const int64_t count = unsaid_;
  if (count == 0) return;
  try {
    const std::string text = absl::StrCat(
        "log: ", count, " lines were lost here: nobody read them in time, or memory ran out");
    spdlog::memory_buf_t line;
    formatter_->format({"", spdlog::level::warn, text}, line);
    lines->append(line.data(), line.size());
    unwritten_bytes_ += static_cast<int64_t>(line.size());
  } catch (const std::bad_alloc&) {
  }
  unsaid_ = 0;
}

// One by one: a line of at most PIPE_BUF bytes stays whole among those of a pipe's other writers.
void LogSink::WriteLines(const std::string& lines) {
  for (size_t begin = 0; begin < lines.size();) {
    const size_t bytes = std::min(lines.find('\n', begin), lines.size() - 1) + 1 - begin;
    if (!WriteLine(lines.data() + begin, bytes)) ++lost_;
    unwritten_bytes_ -= static_cast<int64_t>(bytes);
    begin += bytes;
  }
}

bool LogSink::WriteLine(const char* line, size_t bytes) {
  while (bytes > 0) {
    const ssize_t written = write(fd_, line, bytes);
    if (written >= 0) {
      line += written;
      bytes -= static_cast<size_t>(written);
    } else if (errno == EAGAIN) {  // another who has the file has made it so
      pollfd file = {fd_, POLLOUT, 0};
      poll(&file, 1, -1);
    } else if (errno != EINTR) {
      return false;
    }
  }
  return true;
}

}  // namespace swaa::server
