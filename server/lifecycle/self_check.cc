// Whether new clients still reach the server, asked as a client would.

#include "server/lifecycle/self_check.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/generate/steady_time.h"
#include "server/observation/memory_guard.h"
#include "server/observation/request_log.h"

namespace swaa::server {

SelfCheck::SelfCheck(const Options& options, std::function<absl::Status()> probe,
                     std::function<void(bool)> on_change, std::function<void()> on_dead)
    : options_(options),
      probe_(std::move(probe)),
      on_change_(std::move(on_change)),
      on_dead_(std::move(on_dead)),
      thread_([this] { Run(); }) {}

SelfCheck::~SelfCheck() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

bool SelfCheck::Pause() {
  std::unique_lock lock(mutex_);
  return !changed_.wait_for(lock, absl::ToChronoNanoseconds(options_.interval),
                            [this] { return stopping_; });
}

void SelfCheck::Run() {
  int failures = 0;
  bool dead = false;
  absl::Time last_reached = SteadyNow();
  while (Pause()) {
    absl::Status status;
    // Without memory nothing is known.
    if (!GuardMemory("a self-check", [&] { status = probe_(); })) continue;
    if (status.ok() || absl::IsResourceExhausted(status)) {
      last_reached = SteadyNow();
      if (failures >= 2) {
        LogInfo("self-check: new clients reach the server again");
        on_change_(true);
      }
      failures = 0;
      continue;
    }
    GuardMemory("a line of the log", [&] {
      LogWarning(absl::StrCat("self-check: a new client would not reach the server: ",
                              std::string(status.message())));
    });
    if (++failures == 2) on_change_(false);
    if (!dead && SteadyNow() - last_reached >= options_.dead_after) {
      dead = true;
      on_dead_();
    }
  }
}

}  // namespace swaa::server
