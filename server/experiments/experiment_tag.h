// A request's place in an experiment.

#ifndef SWAA_SERVER_EXPERIMENTS_EXPERIMENT_TAG_H_
#define SWAA_SERVER_EXPERIMENTS_EXPERIMENT_TAG_H_

#include <cstdint>
#include <memory>
#include <string>

#include "server/experiments/experiment_set.h"

namespace swaa::server {

// Kept from the choice of the arm to the request's end, whatever is configured meanwhile.
struct ExperimentTag {
  std::shared_ptr<const ExperimentSet> set;  // owns `experiment`
  const ActiveExperiment* experiment = nullptr;
  int32_t arm = 0;
  int32_t group = 0;
  uint64_t unit_key = 0;
  int64_t pair = 0;      // switchback
  bool washout = false;  // switchback

  const std::string& experiment_id() const { return experiment->proto().id(); }
  const std::string& arm_name() const { return experiment->proto().arms(arm).name(); }
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_EXPERIMENTS_EXPERIMENT_TAG_H_
