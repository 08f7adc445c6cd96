// SIGTERM, SIGINT and SIGHUP, read by a thread of their own instead of handlers.

#include "server/lifecycle/shutdown_signals.h"

#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <poll.h>
#include <unistd.h>
#include <utility>

#include <sys/eventfd.h>
#include <sys/signalfd.h>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "server/generate/steady_time.h"
#include "server/observation/memory_guard.h"
#include "server/observation/request_log.h"

namespace swaa::server {
namespace {

constexpr absl::Duration kSameSignal = absl::Seconds(1);

}  // namespace

ShutdownSignals::ShutdownSignals() {
  // Who reads the log may go.
  SWAA_CHECK(std::signal(SIGPIPE, SIG_IGN) != SIG_ERR);
  sigset_t signals;
  sigemptyset(&signals);
  for (int one : {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGALRM}) sigaddset(&signals, one);
  SWAA_CHECK_EQ(pthread_sigmask(SIG_BLOCK, &signals, nullptr), 0);
  signal_fd_ = signalfd(-1, &signals, SFD_CLOEXEC);
  stop_fd_ = eventfd(0, EFD_CLOEXEC);
  SWAA_CHECK(signal_fd_ >= 0 && stop_fd_ >= 0) << "no file descriptor is left";
  thread_ = std::thread([this] { Watch(); });
}

ShutdownSignals::~ShutdownSignals() {
  const uint64_t one = 1;
  SWAA_CHECK_EQ(write(stop_fd_, &one, sizeof(one)), static_cast<ssize_t>(sizeof(one)));
  thread_.join();
  close(signal_fd_);
  close(stop_fd_);
}

int ShutdownSignals::Await() {
  std::unique_lock lock(mutex_);
  awaited_ = true;
  came_.wait(lock, [this] { return first_.has_value(); });
  return *first_;
}

void ShutdownSignals::End() {
  std::lock_guard lock(mutex_);
  if (first_.has_value()) return;
  first_ = 0;
  first_at_ = SteadyNow();
  came_.notify_all();
}

void ShutdownSignals::OnHangup(std::function<void()> handler) {
  std::lock_guard lock(mutex_);
  on_hangup_ = std::move(handler);
  if (hung_up_ && on_hangup_) on_hangup_();
  hung_up_ = false;
}

void ShutdownSignals::Watch() {
  for (;;) {
    pollfd fds[2] = {{signal_fd_, POLLIN, 0}, {stop_fd_, POLLIN, 0}};
    if (poll(fds, 2, -1) < 0) continue;
    if (fds[1].revents != 0) return;
    signalfd_siginfo info;
    if (read(signal_fd_, &info, sizeof(info)) == sizeof(info)) {
      GuardMemory("what a signal asks for", [&] { OnSignal(static_cast<int>(info.ssi_signo)); });
    }
  }
}

void ShutdownSignals::OnSignal(int signal) {
  std::lock_guard lock(mutex_);
  if (signal == SIGHUP) {
    if (on_hangup_) {
      on_hangup_();
    } else {
      hung_up_ = true;
      LogInfo("SIGHUP while starting: the configuration is read again once the server is ready");
    }
    return;
  }
  if (signal != SIGTERM && signal != SIGINT) {
    LogInfo(absl::StrCat("signal ", signal, ": it means nothing here"));
    return;
  }
  if (first_.has_value() && SteadyNow() - first_at_ < kSameSignal) return;
  if (!awaited_ || first_.has_value()) {
    GuardMemory("a line of the log", [&] {
      LogWarning(absl::StrCat("signal ", signal, awaited_ ? " again" : " while starting",
                              ": ending at once"));
    });
    FlushLog();
    std::_Exit(128 + signal);
  }
  first_ = signal;
  first_at_ = SteadyNow();
  came_.notify_all();
}

}  // namespace swaa::server
