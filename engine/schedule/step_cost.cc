// Shares of a step's time.

#include "engine/schedule/step_cost.h"

namespace swaa {

std::vector<double> ShareStepTime(const StepCostWeights& weights, const std::vector<StepWork>& work,
                                  double seconds) {
  std::vector<double> shares;
  shares.reserve(work.size());
  double sum = 0;
  for (const StepWork& one : work) {
    shares.push_back(weights.row * static_cast<double>(one.rows) +
                     weights.attended_key * static_cast<double>(one.attended_keys) +
                     weights.logits * static_cast<double>(one.logits));
    sum += shares.back();
  }
  for (double& share : shares) share *= sum > 0 ? seconds / sum : 0;
  return shares;
}

}  // namespace swaa
