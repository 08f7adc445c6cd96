// Bench: what goes on beside the load: the server's own view of it, progress, interruption.

#ifndef SWAA_TOOLS_BENCH_MONITOR_H_
#define SWAA_TOOLS_BENCH_MONITOR_H_

#include <atomic>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "absl/time/time.h"
#include "swaa/v1/control_service.grpc.pb.h"

namespace swaa::tools::bench {

// The server's load at a moment of the run.
struct LoadSample {
  double seconds = 0;
  v1::GetLoadResponse load;
};

// A thread that asks for the server's load every interval, calls a function some times a second,
// and waits for Ctrl-C.
class Monitor {
 public:
  struct Callbacks {
    std::function<double()> seconds;    // the run's clock
    std::function<void()> tick;         // five times a second
    std::function<void()> interrupted;  // at the first Ctrl-C; the second ends the process
  };

  // Keeps Ctrl-C from ending the process from now on. Call before the process has threads.
  static void BlockSignals();

  Monitor(std::shared_ptr<grpc::Channel> channel, absl::Duration poll_interval,
          Callbacks callbacks);
  ~Monitor() { Stop(); }

  // Ends the thread, after one last sample; what it sampled, once.
  std::vector<LoadSample> Stop();

 private:
  void Run();
  void Sample();
  // A tick at most, and `most_seconds`.
  void WaitForTick(double most_seconds);

  const std::unique_ptr<v1::ControlService::Stub> stub_;
  const absl::Duration poll_interval_;
  const Callbacks callbacks_;
  std::vector<LoadSample> samples_;  // the thread's until it is joined
  bool was_interrupted_ = false;     // the thread's
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace swaa::tools::bench

#endif  // SWAA_TOOLS_BENCH_MONITOR_H_
