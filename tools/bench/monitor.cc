// Bench: what goes on beside the load: the server's own view of it, progress, interruption.

#include "tools/bench/monitor.h"

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <pthread.h>
#include <utility>

namespace swaa::tools::bench {
namespace {

constexpr double kTickSeconds = 0.2;
constexpr absl::Duration kLoadDeadline = absl::Seconds(1);
constexpr int kInterruptedExitCode = 130;

// SIGUSR1 wakes the thread for its end.
sigset_t Signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGUSR1);
  return signals;
}

}  // namespace

void Monitor::BlockSignals() {
  const sigset_t signals = Signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

Monitor::Monitor(std::shared_ptr<grpc::Channel> channel, absl::Duration poll_interval,
                 Callbacks callbacks)
    : stub_(v1::ControlService::NewStub(std::move(channel))),
      poll_interval_(poll_interval),
      callbacks_(std::move(callbacks)),
      thread_([this] { Run(); }) {}

std::vector<LoadSample> Monitor::Stop() {
  if (thread_.joinable()) {
    stopping_ = true;
    pthread_kill(thread_.native_handle(), SIGUSR1);
    thread_.join();
  }
  return std::exchange(samples_, {});
}

void Monitor::Run() {
  const double interval = absl::ToDoubleSeconds(poll_interval_);
  double next_sample = 0;
  while (!stopping_) {
    if (const double now = callbacks_.seconds(); now >= next_sample) {
      Sample();
      next_sample = now + interval;
    }
    callbacks_.tick();
    WaitForTick(next_sample - callbacks_.seconds());
  }
  Sample();
  callbacks_.tick();
}

// An overloaded server may leave out a sample; the gap shows where one is missing.
void Monitor::Sample() {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + kLoadDeadline));
  LoadSample sample;
  if (!stub_->GetLoad(&context, {}, &sample.load).ok()) return;
  sample.seconds = callbacks_.seconds();
  samples_.push_back(std::move(sample));
}

void Monitor::WaitForTick(double most_seconds) {
  const sigset_t signals = Signals();
  const double seconds = std::clamp(most_seconds, 0.0, kTickSeconds);
  const timespec tick{0, static_cast<long>(seconds * 1e9)};
  if (sigtimedwait(&signals, nullptr, &tick) != SIGINT) return;
  if (was_interrupted_) std::_Exit(kInterruptedExitCode);
  was_interrupted_ = true;
  callbacks_.interrupted();
}

}  // namespace swaa::tools::bench
