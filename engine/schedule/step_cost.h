// Shares a step's time out among the requests that it computed for.

#ifndef SWAA_ENGINE_SCHEDULE_STEP_COST_H_
#define SWAA_ENGINE_SCHEDULE_STEP_COST_H_

#include <cstdint>
#include <vector>

namespace swaa {

// What a step did for one request.
struct StepWork {
  int64_t rows = 0;
  int64_t attended_keys = 0;  // (query, key) pairs over all layers
  int64_t logits = 0;         // rows of logits

  StepWork& operator+=(const StepWork& other) {
    rows += other.rows;
    attended_keys += other.attended_keys;
    logits += other.logits;
    return *this;
  }
};

// What one of each costs, beside each other: only their ratios count. The default is of the order
// of the operations of a small model (a row: twice its parameters; a key: four times the width of a
// layer's heads; logits: twice the width of a layer by the vocabulary). Who knows the model and has
// measured the device gives better ones.
struct StepCostWeights {
  double row = 1;
  double attended_key = 5e-6;
  double logits = 0.15;
};

// The share of each in a step's time, by weight. Adds up to `seconds` if any of them did anything.
// Pure.
std::vector<double> ShareStepTime(const StepCostWeights& weights, const std::vector<StepWork>& work,
                                  double seconds);

}  // namespace swaa

#endif  // SWAA_ENGINE_SCHEDULE_STEP_COST_H_
