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
#include "server/observation/request_log.h"

namespace swaa::server {

ShutdownSignals::ShutdownSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGHUP);
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
  if (!first_.has_value()) first_ = 0;
  came_.notify_all();
}

void ShutdownSignals::OnHangup(std::function<void()> handler) {
  std::lock_guard lock(mutex_);
  on_hangup_ = std::move(handler);
}

void ShutdownSignals::Watch() {
  for (;;) {
    pollfd fds[2] = {{signal_fd_, POLLIN, 0}, {stop_fd_, POLLIN, 0}};
    if (poll(fds, 2, -1) < 0) continue;
    if (fds[1].revents != 0) return;
    signalfd_siginfo info;
    if (read(signal_fd_, &info, sizeof(info)) == sizeof(info)) {
      OnSignal(static_cast<int>(info.ssi_signo));
    }
  }
}

void ShutdownSignals::OnSignal(int signal) {
  std::lock_guard lock(mutex_);
  if (signal == SIGHUP) {
    if (on_hangup_) {
      on_hangup_();
    } else {
      LogInfo("SIGHUP: there is no configuration to read again");
    }
    return;
  }
  if (!awaited_ || first_.has_value()) {
    LogWarning(absl::StrCat("signal ", signal, awaited_ ? " again" : " while starting",
                            ": ending at once"));
    std::_Exit(128 + signal);
  }
  first_ = signal;
  came_.notify_all();
}

}  // namespace swaa::server
