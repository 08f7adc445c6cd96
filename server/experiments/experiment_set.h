// The experiments in force, and which arm a request gets.

#ifndef SWAA_SERVER_EXPERIMENTS_EXPERIMENT_SET_H_
#define SWAA_SERVER_EXPERIMENTS_EXPERIMENT_SET_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <google/protobuf/repeated_field.h>

#include "absl/status/statusor.h"
#include "server/experiments/assignment.h"
#include "server/experiments/experiment_data.h"
#include "server/experiments/experiment_definition.h"
#include "swaa/v1/experiment.pb.h"

namespace swaa::server {

using Stops = std::map<StopKey, StopRecord>;

// The revision that ran last of an experiment, by its id: of the set before, or of a store.
struct KnownRevision {
  uint64_t revision = 0;
  uint64_t content_hash = 0;
  uint32_t coverage = 0;
};
using KnownRevisions = std::map<std::string, KnownRevision>;

// An experiment of a set. Immutable.
struct ActiveExperiment {
  ExperimentDefinition definition;
  std::vector<BucketRange> arm_ranges;  // [arms]; a switchback: of enrolment, in arm 0's place
  uint64_t revision = 0;

  const v1::Experiment& proto() const { return definition.experiment; }
  int32_t num_arms() const { return definition.experiment.arms_size(); }
};

enum class Enrolment {
  kAssigned,
  kNoUnit,   // empty
  kInvalid,  // a unit of more than kMaxUnitBytes
  kOutside,  // no experiment runs in the unit's layer bucket, or its coverage leaves the unit out
  kStopped,  // the unit's arm or experiment was stopped: recorded in no arm
};
// "assigned", "no_unit", "invalid", "outside", "stopped": the label `reason` of
// swaa_experiment_unassigned_total.
const char* EnrolmentName(Enrolment enrolment);

struct Assignment {
  Enrolment enrolment = Enrolment::kOutside;
  // Owned by the set. Null unless assigned or stopped.
  const ActiveExperiment* experiment = nullptr;
  // The arm whose recipe the unit gets; a stopped arm's units get control's. -1: the default
  // recipe, as the experiment stopped as a whole.
  int32_t arm = -1;
  // Set as far as they were looked at, for people to see.
  uint32_t layer_bucket = 0;
  uint32_t arm_bucket = 0;
  int32_t group = 0;
  int64_t pair = 0;      // switchback
  bool washout = false;  // switchback: kept out of `pairs`

  const std::string* recipe_name() const {
    return experiment == nullptr || arm < 0 ? nullptr
                                            : &experiment->proto().arms(arm).recipe_name();
  }
};

// Immutable; any thread.
class ExperimentSet {
 public:
  ExperimentSet() = default;

  // INVALID_ARGUMENT with key and way out ("experiments[1].layer_begin: ..."). Experiments that
  // have ended by now_ms may overlap others.
  //
  // The revision is the definition's content hash. Coverage is in no hash, as raising it keeps what
  // is measured: with the same content as `known`, a coverage not below its keeps its revision, and
  // a lower one gives another, made of the one before and the coverage. A replica that has not
  // known the higher coverage cannot tell, so lower it on all of them, or take another salt.
  static absl::StatusOr<ExperimentSet> Create(
      const google::protobuf::RepeatedPtrField<v1::Experiment>& experiments,
      const RecipeView& recipes, int64_t now_ms, const KnownRevisions& known = {});

  const std::vector<ActiveExperiment>& experiments() const { return experiments_; }
  const ActiveExperiment* Find(std::string_view id) const;
  const ActiveExperiment* FindRevision(uint64_t revision) const;
  // For the set that comes after.
  KnownRevisions Known() const;
  // What is allowed but may surprise: an experiment that starts anew with the salt it had.
  const std::vector<std::string>& warnings() const { return warnings_; }

  // Counts nothing. `unit`: bytes as the client gave them.
  Assignment Assign(std::string_view unit, int64_t unix_ms, const Stops& stops) const;

 private:
  std::vector<ActiveExperiment> experiments_;
  std::vector<std::string> warnings_;
};

// Stopped: as a whole, or control, or every other arm.
v1::ExperimentState StateOf(const ActiveExperiment& experiment, int64_t unix_ms,
                            const Stops& stops);

v1::ExperimentStatus StatusOf(const ActiveExperiment& experiment, int64_t unix_ms,
                              const Stops& stops);

// The same for an experiment that only a store knows.
v1::ExperimentState StateOf(const v1::Experiment& experiment, uint64_t revision, int64_t unix_ms,
                            const Stops& stops);
v1::ExperimentStatus StatusOf(const v1::Experiment& experiment, uint64_t revision, int64_t unix_ms,
                              const Stops& stops);

}  // namespace swaa::server

#endif  // SWAA_SERVER_EXPERIMENTS_EXPERIMENT_SET_H_
