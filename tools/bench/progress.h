// Bench: how far a run is, on stderr.

#ifndef SWAA_TOOLS_BENCH_PROGRESS_H_
#define SWAA_TOOLS_BENCH_PROGRESS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "tools/bench/stream_pool.h"

namespace swaa::tools::bench {

// A bar that is drawn again in place on a terminal, a line every ten seconds elsewhere. One thread
// at a time.
class Progress {
 public:
  // `total_requests` and `duration` are the run's limits; the nearer one makes the bar.
  Progress(std::string title, std::optional<int64_t> total_requests, absl::Duration duration);
  // Ends the bar's line.
  ~Progress();

  void Show(const StreamPool::Counts& counts, double seconds);

 private:
  const std::string title_;
  const std::optional<int64_t> total_requests_;
  const absl::Duration duration_;
  const bool terminal_;
  bool shown_ = false;
  double next_line_seconds_ = 0;
};

// The bar alone: "[####......]  40 %"; a part beyond 0 to 1 is drawn as the nearest.
std::string ProgressBar(double part);

}  // namespace swaa::tools::bench

#endif  // SWAA_TOOLS_BENCH_PROGRESS_H_
