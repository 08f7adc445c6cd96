// A linear model of how long a step takes, fitted while serving: what a request's own tokens and
// keys cost, apart from what a step costs whoever is in it.

#ifndef SWAA_ENGINE_SCHEDULE_STEP_TIME_MODEL_H_
#define SWAA_ENGINE_SCHEDULE_STEP_TIME_MODEL_H_

#include <array>
#include <cstdint>
#include <optional>

namespace swaa {

// What a step did, or what it did for one request. Keys are (query, key) pairs over all layers.
struct StepWork {
  int64_t prefill_tokens = 0;
  int64_t decode_tokens = 0;
  int64_t prefill_keys = 0;
  int64_t decode_keys = 0;

  StepWork& operator+=(const StepWork& other) {
    prefill_tokens += other.prefill_tokens;
    decode_tokens += other.decode_tokens;
    prefill_keys += other.prefill_keys;
    decode_keys += other.decode_keys;
    return *this;
  }
};

// seconds = b0 + b1 prefill_tokens + b2 decode_tokens + b3 prefill_keys + b4 decode_keys, all b >=
// 0, for steps that only prefill, only decode, and do both, each with coefficients of its own.
// Fitted by non-negative least squares over all steps, older ones counting less (half after 10,000
// steps of the kind), after each step from the 32nd on: what short prompts taught says little of
// the first long ones, and one long step says little of the next. Not thread-safe.
class StepTimeModel {
 public:
  // Takes a step into account, in some microseconds.
  void Observe(const StepWork& step, double seconds);

  // Seconds that `part` of the step costs by itself, without b0. Absent until the steps of the
  // step's kind were fitted.
  std::optional<double> Cost(const StepWork& step, const StepWork& part) const;

  // How good the model is, over the same fading past; each step is judged by the coefficients that
  // were known before it.
  struct Quality {
    int64_t steps = 0;          // that were judged
    double error_ratio = 0;     // mean |residual| / mean duration
    double closure_ratio = 0;   // sum of predictions / sum of durations
    double overhead_ratio = 0;  // sum of b0 / sum of durations
  };
  Quality quality() const;

 private:
  static constexpr int kTerms = 5;
  using Vector = std::array<double, kTerms>;
  struct Kind {
    std::array<Vector, kTerms> products{};  // sum of x xT
    Vector targets{};                       // sum of x seconds
    int64_t steps = 0;
    std::optional<Vector> coefficients;
  };

  static int KindOf(const StepWork& step);
  static Vector Terms(const StepWork& work, double constant);
  static Vector Fit(const Kind& kind);

  std::array<Kind, 3> kinds_;  // prefill, decode, mixed
  int64_t judged_steps_ = 0;
  double judged_seconds_ = 0;
  double predicted_seconds_ = 0;
  double overhead_seconds_ = 0;
  double residual_seconds_ = 0;
};

}  // namespace swaa

#endif  // SWAA_ENGINE_SCHEDULE_STEP_TIME_MODEL_H_
