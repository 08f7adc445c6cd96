// When an arm does too much harm to go on.

#ifndef SWAA_SERVER_EXPERIMENTS_GUARDRAILS_H_
#define SWAA_SERVER_EXPERIMENTS_GUARDRAILS_H_

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "server/experiments/experiment_data.h"
#include "server/experiments/experiment_set.h"

namespace swaa::server {

// Over all guardrails and arms of an experiment: the chance to stop one that does no harm, however
// often one looks.
inline constexpr double kGuardrailAlpha = 0.01;

struct GuardrailBreach {
  int32_t arm = 0;
  std::string reason;  // in words and figures
};

// The arms whose harm against control is beyond a guardrail's maximum_harm: the whole of a
// one-sided bound that is valid at all times. An arm is named once. Judges nothing before both arms
// have 100 units, and rates not before both arms together have 25 ones and 25 zeros. A switchback
// has none but the latency guardrail. Pure.
std::vector<GuardrailBreach> FindGuardrailBreaches(const ActiveExperiment& experiment,
                                                   const std::map<SumKey, Sum>& totals,
                                                   const std::vector<int64_t>& units);

// Whether all of the server's traffic waits too long for its first token, whatever arm it is in: a
// heavy arm in a shared batch slows all of them, so that no difference between arms shows it. Not
// thread-safe.
class LatencyGuardrail {
 public:
  static constexpr int kMinutes = 5;

  void Observe(double seconds, int64_t now_ms);
  // Whether the 95th percentile of each of the last kMinutes whole minutes, none of them without
  // requests, was above the limit.
  bool IsBreached(double limit_seconds, int64_t now_ms) const;

 private:
  struct Minute {
    int64_t minute = -1;
    int64_t count = 0;
    SketchBins bins;

    double P95() const;
  };

  std::array<Minute, kMinutes + 1> minutes_;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_EXPERIMENTS_GUARDRAILS_H_
