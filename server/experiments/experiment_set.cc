// Revisions, overlaps, states and assignment.

#include "server/experiments/experiment_set.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace swaa::server {
namespace {

bool HasStarted(const v1::Experiment& experiment, int64_t unix_ms) {
  return !experiment.has_start_time() || unix_ms >= ToUnixMs(experiment.start_time());
}
bool HasEnded(const v1::Experiment& experiment, int64_t unix_ms) {
  return experiment.has_end_time() && unix_ms >= ToUnixMs(experiment.end_time());
}

bool IsStopped(const Stops& stops, uint64_t revision, int32_t arm) {
  return stops.find({revision, arm}) != stops.end();
}

bool IsStoppedAsAWhole(const v1::Experiment& experiment, uint64_t revision, const Stops& stops) {
  const int32_t control = FindArm(experiment, experiment.control_arm());
  if (IsStopped(stops, revision, kAllArms) || IsStopped(stops, revision, control)) return true;
  for (int32_t arm = 0; arm < experiment.arms_size(); ++arm) {
    if (arm != control && !IsStopped(stops, revision, arm)) return false;
  }
  return true;
}

absl::Status CheckOverlap(const ActiveExperiment& one, const std::string& path,
                          const ActiveExperiment& other) {
  const v1::Experiment& a = one.proto();
  const v1::Experiment& b = other.proto();
  if (a.layer_begin() >= b.layer_end() || b.layer_begin() >= a.layer_end()) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(path, ".layer_begin: [", a.layer_begin(), ", ", a.layer_end(), ") of ", a.id(),
                   " overlaps [", b.layer_begin(), ", ", b.layer_end(), ") of ", b.id(),
                   "; a request has one recipe, so give them ranges apart, or end one"));
}

std::vector<BucketRange> RangesOf(const v1::Experiment& experiment) {
  if (experiment.design() == v1::EXPERIMENT_DESIGN_SWITCHBACK) {
    return ArmRanges({1}, experiment.coverage());
  }
  std::vector<uint32_t> weights;
  for (const v1::ExperimentArm& arm : experiment.arms()) weights.push_back(arm.weight());
  return ArmRanges(weights, experiment.coverage());
}

uint64_t LoweredRevision(uint64_t revision, uint32_t coverage) {
  return Fmix64(Fnv1a64(absl::StrCat("coverage ", coverage), revision));
}

uint64_t RevisionOf(const ExperimentDefinition& definition, const KnownRevision* known) {
  const uint32_t coverage = definition.experiment.coverage();
  if (known == nullptr || known->content_hash != definition.content_hash) {
    return definition.content_hash;
  }
  if (coverage >= known->coverage) return known->revision;
  return LoweredRevision(known->revision, coverage);
}

}  // namespace

const char* EnrolmentName(Enrolment enrolment) {
  switch (enrolment) {
    case Enrolment::kAssigned:
      return "assigned";
    case Enrolment::kNoUnit:
      return "no_unit";
    case Enrolment::kInvalid:
      return "invalid";
    case Enrolment::kOutside:
      return "outside";
    case Enrolment::kStopped:
      return "stopped";
  }
  return "";
}

absl::StatusOr<ExperimentSet> ExperimentSet::Create(
    const google::protobuf::RepeatedPtrField<v1::Experiment>& experiments,
    const RecipeView& recipes, int64_t now_ms, const KnownRevisions& known) {
  ExperimentSet set;
  std::set<std::string> ids;
  for (int i = 0; i < experiments.size(); ++i) {
    const std::string path = absl::StrCat("experiments[", i, "]");
    ActiveExperiment active;
    SWAA_ASSIGN_OR_RETURN(active.definition, DefineExperiment(experiments[i], recipes, path));
    const v1::Experiment& experiment = active.proto();
    if (!ids.insert(experiment.id()).second) {
      return absl::InvalidArgumentError(absl::StrCat(
          path, ".id: ", experiment.id(), " is another experiment's id too; give each its own"));
    }
    active.arm_ranges = RangesOf(experiment);
    const auto before = known.find(experiment.id());
    active.revision =
        RevisionOf(active.definition, before == known.end() ? nullptr : &before->second);
    if (before != known.end() && before->second.revision != active.revision) {
      set.warnings_.push_back(absl::StrCat(
          path, ": ", experiment.id(), " starts a new revision; unless its salt is a new one too, ",
          "units keep their arms and carry over what they have seen"));
    }
    for (const ActiveExperiment& other : set.experiments_) {
      if (HasEnded(experiment, now_ms) || HasEnded(other.proto(), now_ms)) continue;
      SWAA_RETURN_IF_ERROR(CheckOverlap(active, path, other));
    }
    set.experiments_.push_back(std::move(active));
  }
  return set;
}

const ActiveExperiment* ExperimentSet::Find(std::string_view id) const {
  const auto found = std::find_if(experiments_.begin(), experiments_.end(),
                                  [&](const auto& each) { return each.proto().id() == id; });
  return found == experiments_.end() ? nullptr : &*found;
}

const ActiveExperiment* ExperimentSet::FindRevision(uint64_t revision) const {
  const auto found = std::find_if(experiments_.begin(), experiments_.end(),
                                  [&](const auto& each) { return each.revision == revision; });
  return found == experiments_.end() ? nullptr : &*found;
}

KnownRevisions ExperimentSet::Known() const {
  KnownRevisions known;
  for (const ActiveExperiment& each : experiments_) {
    known[each.proto().id()] = {each.revision, each.definition.content_hash,
                                each.proto().coverage()};
  }
  return known;
}

Assignment ExperimentSet::Assign(std::string_view unit, int64_t unix_ms, const Stops& stops) const {
  Assignment assignment;
  if (unit.empty() || unit.size() > kMaxUnitBytes) {
    assignment.enrolment = unit.empty() ? Enrolment::kNoUnit : Enrolment::kInvalid;
    return assignment;
  }
  assignment.layer_bucket = BucketOf(AssignmentHash(kLayerSalt, unit));
  const auto owner =
      std::find_if(experiments_.begin(), experiments_.end(), [&](const ActiveExperiment& each) {
        const v1::Experiment& proto = each.proto();
        return BucketRange{proto.layer_begin(), proto.layer_end()}.Contains(
                   assignment.layer_bucket) &&
               HasStarted(proto, unix_ms) && !HasEnded(proto, unix_ms);
      });
  if (owner == experiments_.end()) return assignment;
  const v1::Experiment& proto = owner->proto();
  const uint64_t hash = AssignmentHash(proto.salt(), unit);
  assignment.arm_bucket = BucketOf(hash);
  assignment.group = GroupOf(hash);
  const auto range =
      std::find_if(owner->arm_ranges.begin(), owner->arm_ranges.end(),
                   [&](const BucketRange& each) { return each.Contains(assignment.arm_bucket); });
  if (range == owner->arm_ranges.end()) return assignment;

  assignment.experiment = &*owner;
  assignment.arm = static_cast<int32_t>(range - owner->arm_ranges.begin());
  if (proto.design() == v1::EXPERIMENT_DESIGN_SWITCHBACK) {
    const SwitchbackSlot slot =
        SwitchbackAt(proto.salt(), unix_ms / 1000, proto.window_seconds(), proto.washout_seconds());
    assignment.arm = slot.arm;
    assignment.pair = slot.pair;
    assignment.washout = slot.washout;
  }
  assignment.enrolment = Enrolment::kAssigned;
  if (IsStoppedAsAWhole(proto, owner->revision, stops)) {
    assignment.enrolment = Enrolment::kStopped;
    // Without control, or by an operator's word, there is no arm left to give; where every other
    // arm stopped by itself, there is.
    const bool control_is_left = !IsStopped(stops, owner->revision, kAllArms) &&
                                 !IsStopped(stops, owner->revision, owner->definition.control);
    assignment.arm = control_is_left ? owner->definition.control : -1;
  } else if (IsStopped(stops, owner->revision, assignment.arm)) {
    assignment.enrolment = Enrolment::kStopped;
    assignment.arm = owner->definition.control;
  }
  return assignment;
}

v1::ExperimentState StateOf(const v1::Experiment& experiment, uint64_t revision, int64_t unix_ms,
                            const Stops& stops) {
  if (HasEnded(experiment, unix_ms)) return v1::EXPERIMENT_STATE_ENDED;
  if (IsStoppedAsAWhole(experiment, revision, stops)) return v1::EXPERIMENT_STATE_STOPPED;
  return HasStarted(experiment, unix_ms) ? v1::EXPERIMENT_STATE_RUNNING
                                         : v1::EXPERIMENT_STATE_SCHEDULED;
}

v1::ExperimentStatus StatusOf(const v1::Experiment& experiment, uint64_t revision, int64_t unix_ms,
                              const Stops& stops) {
  v1::ExperimentStatus status;
  *status.mutable_experiment() = experiment;
  status.set_revision(revision);
  status.set_state(StateOf(experiment, revision, unix_ms, stops));
  for (const auto& [key, stop] : stops) {
    if (key.revision != revision) continue;
    v1::StoppedArm& stopped = *status.add_stopped_arms();
    if (0 <= key.arm && key.arm < experiment.arms_size()) {
      stopped.set_arm(experiment.arms(key.arm).name());
    }
    stopped.set_reason(stop.reason);
    stopped.mutable_stop_time()->set_seconds(stop.at_ms / 1000);
    stopped.mutable_stop_time()->set_nanos(static_cast<int32_t>(stop.at_ms % 1000) * 1000000);
  }
  return status;
}

v1::ExperimentState StateOf(const ActiveExperiment& experiment, int64_t unix_ms,
                            const Stops& stops) {
  return StateOf(experiment.proto(), experiment.revision, unix_ms, stops);
}

v1::ExperimentStatus StatusOf(const ActiveExperiment& experiment, int64_t unix_ms,
                              const Stops& stops) {
  return StatusOf(experiment.proto(), experiment.revision, unix_ms, stops);
}

}  // namespace swaa::server
