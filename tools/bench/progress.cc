// Bench: how far a run is, on stderr.

#include "tools/bench/progress.h"

#include <algorithm>
#include <cstdio>
#include <unistd.h>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace swaa::tools::bench {
namespace {

constexpr int kBarWidth = 24;
constexpr double kSecondsPerLine = 10;

}  // namespace

std::string ProgressBar(double part) {
  const double within = std::clamp(part, 0.0, 1.0);
  const int filled = static_cast<int>(within * kBarWidth);
  return absl::StrCat("[", std::string(filled, '#'), std::string(kBarWidth - filled, '.'), "] ",
                      absl::StrFormat("%3d %%", static_cast<int>(within * 100)));
}

Progress::Progress(std::string title, std::optional<int64_t> total_requests,
                   absl::Duration duration)
    : title_(std::move(title)),
      total_requests_(total_requests),
      duration_(duration),
      terminal_(isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() {
  if (terminal_ && shown_) std::fputc('\n', stderr);
}

void Progress::Show(const StreamPool::Counts& counts, double seconds) {
  if (!terminal_ && seconds < next_line_seconds_) return;
  next_line_seconds_ = seconds + kSecondsPerLine;
  const int64_t done = counts.completed + counts.failed;
  double part = 0;
  if (total_requests_) part = static_cast<double>(done) / static_cast<double>(*total_requests_);
  if (duration_ != absl::InfiniteDuration()) {
    part = std::max(part, seconds / absl::ToDoubleSeconds(duration_));
  }
  const std::string of_total = total_requests_ ? absl::StrCat("/", *total_requests_) : "";
  const std::string line = absl::StrFormat(
      "%s %s %d%s done, %d failed, %d in flight, %.1f s, %.2f requests/s", title_.c_str(),
      ProgressBar(part).c_str(), done, of_total.c_str(), counts.failed, counts.in_flight(), seconds,
      seconds > 0 ? static_cast<double>(counts.completed) / seconds : 0);
  // The escape clears what a longer line before left.
  std::fprintf(stderr, terminal_ ? "\r%s\x1b[K" : "%s\n", line.c_str());
  std::fflush(stderr);
  shown_ = true;
}

}  // namespace swaa::tools::bench
