// The log's own thread, before a pipe that is read, one that is not, and one that is again.

#include "server/observation/log_sink.h"

#include <csignal>
#include <fcntl.h>
#include <unistd.h>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/details/log_msg.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace swaa::server {
namespace {

using ::testing::HasSubstr;

class LogSinkTest : public ::testing::Test {
 protected:
  LogSinkTest() {
    EXPECT_EQ(pipe(fds_), 0);
    EXPECT_NE(std::signal(SIGPIPE, SIG_IGN), SIG_ERR);
  }
  ~LogSinkTest() override {
    StopReading();
    sink_.reset();
    close(fds_[1]);
  }

  void Start(size_t max_bytes) {
    sink_ = std::make_unique<LogSink>(fds_[1], max_bytes);
    sink_->set_pattern("%v");
  }
  void Log(const std::string& text) { sink_->log({"", spdlog::level::info, text}); }

  // All lines until the sink has ended.
  std::vector<std::string> ReadToEnd() {
    std::string text;
    std::thread reader([&] {
      char buffer[4096];
      for (ssize_t n; (n = read(fds_[0], buffer, sizeof(buffer))) > 0;) text.append(buffer, n);
    });
    sink_.reset();
    close(fds_[1]);
    fds_[1] = -1;
    reader.join();
    std::vector<std::string> lines = absl::StrSplit(text, '\n');
    EXPECT_EQ(lines.back(), "");
    lines.pop_back();
    return lines;
  }
  // Nobody can write to it any more, but for whom it is read.
  void FillPipe() {
    const std::string ends(4096, '\n');
    ASSERT_EQ(fcntl(fds_[1], F_SETFL, O_NONBLOCK), 0);
    while (write(fds_[1], ends.data(), ends.size()) > 0) continue;
    ASSERT_EQ(fcntl(fds_[1], F_SETFL, 0), 0);
  }
  void StopReading() {
    close(fds_[0]);
    fds_[0] = -1;
  }

  int fds_[2];
  std::unique_ptr<LogSink> sink_;
};

TEST_F(LogSinkTest, LinesOfManyThreadsComeWholeAndInTheirOrder) {
  constexpr int kThreads = 4;
  constexpr int kLines = 2000;
  Start(/*max_bytes=*/1 << 20);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([this, t] {
      for (int i = 0; i < kLines; ++i) Log(absl::StrCat(t, " ", i));
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(sink_->lost(), 0);
  std::vector<int> next(kThreads, 0);
  for (const std::string& line : ReadToEnd()) {
    const int thread = line[0] - '0';
    ASSERT_EQ(line, absl::StrCat(thread, " ", next[thread]++));
  }
  EXPECT_THAT(next, ::testing::Each(kLines));
}

TEST_F(LogSinkTest, APipeThatNobodyReadsBlocksNobodyAndALineSaysWhatWasLost) {
  constexpr int kLines = 100000;
  FillPipe();
  Start(/*max_bytes=*/10000);
  for (int i = 0; i < kLines; ++i) Log(absl::StrCat("line ", i));
  const int64_t lost = sink_->lost();
  EXPECT_GT(lost, kLines / 2);
  EXPECT_FALSE(sink_->AwaitWritten(absl::Milliseconds(1)));

  // It flows again: what was kept, in order, and in the place of what was not, how much that is.
  int64_t told = 0;
  int next = 0;
  for (const std::string& line : ReadToEnd()) {
    if (line.empty()) continue;  // what it was full of
    int64_t count = 0;
    if (sscanf(line.c_str(), "log: %ld lines were lost here", &count) == 1) {
      told += count;
      next += static_cast<int>(count);
    } else {
      ASSERT_EQ(line, absl::StrCat("line ", next++));
    }
  }
  EXPECT_EQ(told, lost);
  EXPECT_EQ(next, kLines);
}

TEST_F(LogSinkTest, WhatIsWrittenIsAwaited) {
  Start(/*max_bytes=*/1 << 20);
  Log("one");
  EXPECT_TRUE(sink_->AwaitWritten(absl::Minutes(5)));
  char buffer[16];
  ASSERT_EQ(read(fds_[0], buffer, sizeof(buffer)), 4);
  EXPECT_EQ(std::string(buffer, 4), "one\n");
}

TEST_F(LogSinkTest, LinesForAReaderThatIsGoneAreLost) {
  Start(/*max_bytes=*/1 << 20);
  StopReading();
  for (int i = 0; i < 3; ++i) Log("nobody hears");
  EXPECT_TRUE(sink_->AwaitWritten(absl::Minutes(5)));
  EXPECT_EQ(sink_->lost(), 3);
}

TEST_F(LogSinkTest, AFileThatAnotherMadeNonBlockingLosesNothing) {
  FillPipe();
  ASSERT_EQ(fcntl(fds_[1], F_SETFL, O_NONBLOCK), 0);
  Start(/*max_bytes=*/1 << 20);
  constexpr int kLines = 1000;
  for (int i = 0; i < kLines; ++i) Log(std::string(200, 'x'));
  std::vector<std::string> lines = ReadToEnd();
  std::erase(lines, "");
  EXPECT_EQ(lines.size(), kLines);
}

TEST_F(LogSinkTest, ALineLostOnItsWayIsTold) {
  Start(/*max_bytes=*/1 << 20);
  Log("before");
  sink_->CountLost();
  EXPECT_TRUE(sink_->AwaitWritten(absl::Minutes(5)));
  Log("after");
  EXPECT_EQ(sink_->lost(), 1);
  const std::vector<std::string> lines = ReadToEnd();
  ASSERT_EQ(lines.size(), 3);
  EXPECT_EQ(lines[0], "before");
  EXPECT_THAT(lines[1], HasSubstr("log: 1 lines were lost here"));
  EXPECT_EQ(lines[2], "after");
}

}  // namespace
}  // namespace swaa::server
