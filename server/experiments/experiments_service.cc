// What clients ask of experiments, and tell them.

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/experiments/experiments.h"
#include "server/experiments/metric_names.h"
#include "server/experiments/outcome_token.h"
#include "server/experiments/report.h"
#include "server/generate/errors.h"
#include "server/observation/memory_guard.h"

namespace swaa::server {
namespace {

constexpr int kMostOutcomes = 64;
constexpr size_t kMostRequestIdBytes = 128;
constexpr int64_t kLatestUnixSeconds = 253'402'300'799;  // of google.protobuf.Timestamp

absl::Status NoSuchExperiment(const std::string& id, const std::string& known) {
  return MakeError(absl::StatusCode::kNotFound, "experiment_not_found",
                   absl::StrCat("experiment_id: no experiment ", Quoted(id), "; there are ",
                                known.empty() ? "none" : known));
}

std::string Names(const ExperimentSet& set) {
  std::string names;
  for (const ActiveExperiment& experiment : set.experiments()) {
    absl::StrAppend(&names, names.empty() ? "" : ", ", experiment.proto().id());
  }
  return names;
}

std::string OutcomeNames(const v1::Experiment& experiment) {
  std::string names;
  for (const v1::ExperimentMetric& metric : experiment.metrics()) {
    if (FindServerMetric(metric.name()) != nullptr) continue;
    absl::StrAppend(&names, names.empty() ? "" : ", ", metric.name());
  }
  return names.empty() ? "none" : names;
}

absl::Status BadOutcome(int index, const std::string& what) {
  return MakeError(absl::StatusCode::kInvalidArgument, "invalid_outcome",
                   absl::StrCat("outcomes[", index, "]", what));
}

// Whether the experiment declares the outcome and its scale has the value.
absl::Status CheckOutcome(const v1::Experiment& experiment, const v1::Outcome& outcome, int index) {
  const v1::ExperimentMetric* declared = nullptr;
  for (const v1::ExperimentMetric& metric : experiment.metrics()) {
    if (metric.name() == outcome.metric()) declared = &metric;
  }
  if (declared == nullptr || FindServerMetric(outcome.metric()) != nullptr) {
    return BadOutcome(
        index,
        absl::StrCat(".metric: ", Quoted(outcome.metric()),
                     declared == nullptr ? " is not declared" : " is measured by the server itself",
                     "; outcomes of ", experiment.id(), " are ", OutcomeNames(experiment)));
  }
  const double value = outcome.value();
  if (!std::isfinite(value)) return BadOutcome(index, ".value: is no finite number");
  if (declared->scale() == v1::METRIC_SCALE_RATE && value != 0 && value != 1) {
    return BadOutcome(index, absl::StrCat(".value: ", value, " of a rate; it is 0 or 1"));
  }
  if (declared->scale() == v1::METRIC_SCALE_LOG_MEAN && value <= 0) {
    return BadOutcome(index, absl::StrCat(".value: ", value, " has no logarithm, by which ",
                                          declared->name(), " is compared; send values above 0"));
  }
  return absl::OkStatus();
}

absl::Status WithOutcomeReason(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kAlreadyExists:
      return WithReason(status, "outcome_recorded");
    case absl::StatusCode::kOutOfRange:
      return WithReason(status, "outcome_too_late");
    case absl::StatusCode::kInvalidArgument:
      return WithReason(status, "invalid_outcome");
    case absl::StatusCode::kResourceExhausted:
      return WithReason(status, "storage_full");
    default:
      return status;
  }
}

}  // namespace

v1::ExperimentStatus Experiments::StatusNow(const ActiveExperiment& experiment) const {
  return StatusOf(experiment, NowMs(), *CurrentStops());
}

v1::ListExperimentsResponse Experiments::List() const {
  v1::ListExperimentsResponse response;
  const auto set = CurrentSet();
  for (const ActiveExperiment& experiment : set->experiments()) {
    *response.add_experiments() = StatusNow(experiment);
  }
  return response;
}

absl::StatusOr<v1::GetAssignmentResponse> Experiments::GetAssignment(
    const v1::GetAssignmentRequest& request) const {
  const std::string& unit = request.experiment_unit_id();
  if (unit.empty() || unit.size() > kMaxUnitBytes) {
    return MakeError(absl::StatusCode::kInvalidArgument, "invalid_unit",
                     absl::StrCat("experiment_unit_id: ", unit.size(), " bytes; 1 to ",
                                  kMaxUnitBytes, " are allowed"));
  }
  const auto set = CurrentSet();
  if (request.has_time() &&
      (request.time().seconds() < 0 || request.time().seconds() > kLatestUnixSeconds ||
       request.time().nanos() < 0 || request.time().nanos() >= 1'000'000'000)) {
    return MakeError(absl::StatusCode::kInvalidArgument, "invalid_time",
                     absl::StrCat("time: ", request.time().seconds(),
                                  " s is no time from 1970 to 9999; leave it out for now"));
  }
  const int64_t at = request.has_time() ? ToUnixMs(request.time()) : NowMs();
  const Assignment assignment = set->Assign(unit, at, *CurrentStops());
  v1::GetAssignmentResponse response;
  response.set_layer_bucket(assignment.layer_bucket);
  if (assignment.experiment == nullptr) return response;
  response.set_arm_bucket(assignment.arm_bucket);
  if (const std::string* recipe = assignment.recipe_name()) response.set_recipe_name(*recipe);
  if (assignment.enrolment != Enrolment::kAssigned) return response;
  response.set_experiment_id(assignment.experiment->proto().id());
  response.set_arm(assignment.experiment->proto().arms(assignment.arm).name());
  response.set_revision(assignment.experiment->revision);
  return response;
}

absl::StatusOr<v1::GetReportResponse> Experiments::GetReport(const v1::GetReportRequest& request) {
  std::optional<uint64_t> revision;
  {
    std::lock_guard lock(mutex_);
    const auto known = known_.find(request.experiment_id());
    if (known == known_.end()) {
      return NoSuchExperiment(request.experiment_id(), Names(*set_));
    }
    revision = request.has_revision() ? request.revision() : known->second.revision;
    const auto found = revisions_.find(*revision);
    if (found == revisions_.end() || found->second.id() != request.experiment_id()) {
      return MakeError(absl::StatusCode::kNotFound, "revision_not_found",
                       absl::StrCat("revision: ", *revision, " is none of ",
                                    request.experiment_id(), "; leave it out for the newest"));
    }
  }
  SWAA_ASSIGN_OR_RETURN(ExperimentData data, store_->Snapshot(revision));
  return MakeReport(data, *revision, NowMs());
}

absl::StatusOr<OutcomeScope> Experiments::ScopeOfOutcome(
    const v1::RecordOutcomeRequest& request) const {
  const int64_t window_ms = absl::ToInt64Milliseconds(options_.outcome_window);
  if (!request.outcome_token().empty()) {
    return ReadOutcomeToken(key_, request.request_id(), request.outcome_token(), NowMs(),
                            window_ms);
  }
  std::lock_guard lock(mutex_);
  const auto found = recent_.find(request.request_id());
  if (found == recent_.end()) {
    return MakeError(absl::StatusCode::kNotFound, "request_not_found",
                     absl::StrCat("request_id: ", Quoted(request.request_id()),
                                  " is not known here as a finished request of an experiment; send "
                                  "the outcome_token of its Finished event"));
  }
  if (NowMs() - found->second.end_ms > window_ms) {
    return absl::OutOfRangeError(
        absl::StrCat("request_id: ", Quoted(request.request_id()), " ended more than ",
                     absl::FormatDuration(options_.outcome_window),
                     " ago; record outcomes earlier or raise experiment_storage.outcome_window"));
  }
  return found->second;
}

absl::StatusOr<RequestOutcomes> Experiments::CheckOutcomes(
    const v1::RecordOutcomeRequest& request) const {
  if (request.request_id().empty() || request.request_id().size() > kMostRequestIdBytes) {
    return MakeError(absl::StatusCode::kInvalidArgument, "invalid_request_id",
                     absl::StrCat("request_id: ", request.request_id().size(), " bytes; 1 to ",
                                  kMostRequestIdBytes, " are allowed"));
  }
  if (request.outcomes().empty() || request.outcomes_size() > kMostOutcomes) {
    return MakeError(
        absl::StatusCode::kInvalidArgument, "invalid_outcome",
        absl::StrCat("outcomes: ", request.outcomes_size(), "; send 1 to ", kMostOutcomes));
  }
  SWAA_ASSIGN_OR_RETURN(OutcomeScope scope, ScopeOfOutcome(request));
  RequestOutcomes outcomes{.request_id = request.request_id(), .scope = scope, .at_ms = NowMs()};
  std::lock_guard lock(mutex_);
  const auto revision = revisions_.find(scope.revision);
  if (revision == revisions_.end()) {
    return MakeError(absl::StatusCode::kNotFound, "revision_not_found",
                     "outcome_token: this replica has never had the request's revision of its "
                     "experiment; configure all replicas alike");
  }
  for (int i = 0; i < request.outcomes_size(); ++i) {
    const v1::Outcome& outcome = request.outcomes(i);
    SWAA_RETURN_IF_ERROR(CheckOutcome(revision->second, outcome, i));
    outcomes.values.push_back({outcome.metric(), outcome.value()});
  }
  return outcomes;
}

void Experiments::RecordOutcome(
    const v1::RecordOutcomeRequest& request,
    std::function<void(absl::StatusOr<v1::RecordOutcomeResponse>)> done) {
  absl::StatusOr<RequestOutcomes> outcomes = CheckOutcomes(request);
  if (!outcomes.ok()) return done(WithOutcomeReason(outcomes.status()));
  const auto values = outcomes->values;
  const OutcomeScope scope = outcomes->scope;
  store_->RecordOutcomes(*std::move(outcomes), [this, values, scope, done = std::move(done)](
                                                   absl::StatusOr<int32_t> recorded) {
    if (!recorded.ok()) {
      absl::Status status = std::move(recorded).status();
      GuardMemory("a reason", [&] { status = WithOutcomeReason(status); });
      return done(std::move(status));
    }
    GuardMemory("the count of outcomes", [&] { CountOutcomes(scope, values, *recorded); });
    v1::RecordOutcomeResponse response;
    response.set_recorded_outcomes(static_cast<uint32_t>(*recorded));
    done(response);
  });
}

// Guardrails and metrics see what is new; a request that sends some again with others is seen again
// by guardrails only as far as it is new as a whole.
void Experiments::CountOutcomes(const OutcomeScope& scope, const std::vector<MetricValue>& values,
                                int32_t recorded) {
  if (recorded == 0) return;
  v1::Experiment experiment;
  {
    std::lock_guard lock(mutex_);
    experiment = revisions_[scope.revision];
  }
  metrics_->CountOutcomes(experiment.id(), experiment.arms(scope.arm).name(), recorded);
  if (recorded < static_cast<int32_t>(values.size())) return;
  for (const MetricValue& value : values) {
    for (const v1::ExperimentMetric& metric : experiment.metrics()) {
      if (metric.name() == value.metric) recorder_.CountOutcome(scope, metric, value.value);
    }
  }
}

absl::StatusOr<v1::ExperimentStatus> Experiments::Start(const std::string& experiment_id) {
  std::lock_guard adopting(adopt_mutex_);
  const auto set = CurrentSet();
  const ActiveExperiment* experiment = set->Find(experiment_id);
  if (experiment == nullptr) return NoSuchExperiment(experiment_id, Names(*set));
  // It would stop again within the minute, now or after a restart.
  const std::vector<GuardrailBreach> breaches =
      FindGuardrailBreaches(*experiment, recorder_.Totals(experiment->revision),
                            recorder_.UnitCounts(experiment->revision, experiment->num_arms()));
  if (!breaches.empty()) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, "guardrail_breached",
        absl::StrCat("experiment_id: ", experiment->proto().arms(breaches[0].arm).name(), " of ",
                     experiment_id, ": ", breaches[0].reason,
                     "; raise its maximum_harm, or begin anew with another salt"));
  }
  SWAA_RETURN_IF_ERROR(store_->RemoveStops(experiment->revision));
  auto stops = std::make_shared<Stops>(*CurrentStops());
  std::erase_if(*stops,
                [&](const auto& stop) { return stop.first.revision == experiment->revision; });
  SetStops(std::move(stops));
  LogInfo(absl::StrCat("experiment ", experiment_id, " started by an operator"));
  return StatusNow(*experiment);
}

absl::StatusOr<v1::ExperimentStatus> Experiments::Stop(const std::string& experiment_id,
                                                       const std::string& arm) {
  std::lock_guard adopting(adopt_mutex_);
  const auto set = CurrentSet();
  const ActiveExperiment* experiment = set->Find(experiment_id);
  if (experiment == nullptr) return NoSuchExperiment(experiment_id, Names(*set));
  const int32_t index = arm.empty() ? kAllArms : FindArm(experiment->proto(), arm);
  if (!arm.empty() && index < 0) {
    std::string names;
    for (const v1::ExperimentArm& each : experiment->proto().arms()) {
      absl::StrAppend(&names, names.empty() ? "" : ", ", each.name());
    }
    return MakeError(
        absl::StatusCode::kNotFound, "arm_not_found",
        absl::StrCat("arm: ", Quoted(arm), " is none of ", experiment_id, "; there are ", names));
  }
  SWAA_RETURN_IF_ERROR(StopArm(*experiment, index, "by an operator"));
  return StatusNow(*experiment);
}

}  // namespace swaa::server
