// What Prometheus sees of experiments and shadows.

#include "server/experiments/experiment_metrics.h"

#include "server/observation/family_builder.h"

namespace swaa::server {
namespace {

using Labels = std::vector<prometheus::ClientMetric::Label>;

Labels ArmLabels(const ExperimentMetrics::ExperimentArm& arm) {
  return {{"experiment", arm.first}, {"arm", arm.second}};
}

FamilyBuilder Counters(const std::string& name, const std::string& help) {
  return FamilyBuilder(name, help, prometheus::MetricType::Counter);
}

}  // namespace

void ExperimentMetrics::SetArms(const std::set<ExperimentArm>& arms,
                                const std::set<ExperimentArm>& stopped) {
  std::lock_guard lock(mutex_);
  std::erase_if(arms_, [&](const auto& entry) { return !arms.contains(entry.first); });
  for (const ExperimentArm& arm : arms) arms_[arm].stopped = stopped.contains(arm);
}

void ExperimentMetrics::CountAssignment(const std::string& experiment, const std::string& arm) {
  std::lock_guard lock(mutex_);
  if (const auto it = arms_.find({experiment, arm}); it != arms_.end()) ++it->second.assignments;
}

void ExperimentMetrics::CountUnassigned(const std::string& reason) {
  std::lock_guard lock(mutex_);
  ++unassigned_[reason];
}

void ExperimentMetrics::CountOutcomes(const std::string& experiment, const std::string& arm,
                                      int64_t count) {
  std::lock_guard lock(mutex_);
  if (const auto it = arms_.find({experiment, arm}); it != arms_.end()) {
    it->second.outcomes += count;
  }
}

void ExperimentMetrics::CountGuardrailStop(const std::string& experiment, const std::string& arm) {
  std::lock_guard lock(mutex_);
  if (const auto it = arms_.find({experiment, arm}); it != arms_.end()) {
    ++it->second.guardrail_stops;
  }
}

void ExperimentMetrics::CountShadow(const std::string& recipe, int64_t tokens, int64_t equal_argmax,
                                    double logprob_difference) {
  std::lock_guard lock(mutex_);
  ShadowCounts& counts = shadows_[recipe];
  ++counts.requests;
  counts.tokens += tokens;
  counts.equal_argmax += equal_argmax;
  counts.logprob_difference += logprob_difference;
}

void ExperimentMetrics::CountShadowDropped(const std::string& prompt_len,
                                           const std::string& reason) {
  std::lock_guard lock(mutex_);
  ++shadows_dropped_[{prompt_len, reason}];
}

std::vector<prometheus::MetricFamily> ExperimentMetrics::Collect() const {
  FamilyBuilder assignments = Counters("swaa_experiment_assignments_total",
                                       "Requests whose arm was chosen by an experiment.");
  FamilyBuilder outcomes =
      Counters("swaa_experiment_outcomes_total", "Outcomes that clients recorded.");
  FamilyBuilder stops =
      Counters("swaa_experiment_guardrail_stops_total", "Times that a guardrail stopped an arm.");
  FamilyBuilder stopped("swaa_experiment_arm_stopped",
                        "1 while an arm is stopped and its units get control's recipe.");
  FamilyBuilder unassigned =
      Counters("swaa_experiment_unassigned_total",
               "Requests that an experiment might have had and has not, by reason.");
  FamilyBuilder requests = Counters("swaa_shadow_requests_total",
                                    "Requests that were computed again under two recipes.");
  FamilyBuilder tokens = Counters("swaa_shadow_tokens_total", "Output tokens of these.");
  FamilyBuilder equal =
      Counters("swaa_shadow_equal_argmax_total",
               "Of these tokens, those at which both recipes would choose the same.");
  FamilyBuilder difference(
      "swaa_shadow_logprob_difference_mean",
      "Mean over these tokens: log-probability under the recipe that answered, less that under the "
      "other.");
  FamilyBuilder dropped = Counters("swaa_shadow_dropped_total",
                                   "Requests that were chosen to be computed again and were not.");
  FamilyBuilder lost = Counters("swaa_experiment_dropped_observations_total",
                                "Observations of experiments that storage could not take.");
  lost.Add(static_cast<double>(dropped_()));
  std::lock_guard lock(mutex_);
  for (const auto& [key, arm] : arms_) {
    assignments.Add(static_cast<double>(arm.assignments), ArmLabels(key));
    outcomes.Add(static_cast<double>(arm.outcomes), ArmLabels(key));
    stops.Add(static_cast<double>(arm.guardrail_stops), ArmLabels(key));
    stopped.Add(arm.stopped ? 1 : 0, ArmLabels(key));
  }
  for (const auto& [reason, count] : unassigned_) {
    unassigned.Add(static_cast<double>(count), {{"reason", reason}});
  }
  for (const auto& [recipe, counts] : shadows_) {
    const Labels labels = {{"recipe", recipe}};
    requests.Add(static_cast<double>(counts.requests), labels);
    tokens.Add(static_cast<double>(counts.tokens), labels);
    equal.Add(static_cast<double>(counts.equal_argmax), labels);
    if (counts.tokens > 0) {
      difference.Add(counts.logprob_difference / static_cast<double>(counts.tokens), labels);
    }
  }
  for (const auto& [key, count] : shadows_dropped_) {
    dropped.Add(static_cast<double>(count), {{"prompt_len", key.first}, {"reason", key.second}});
  }
  std::vector<prometheus::MetricFamily> families;
  for (FamilyBuilder* family : {&assignments, &outcomes, &stops, &stopped, &unassigned, &requests,
                                &tokens, &equal, &difference, &dropped, &lost}) {
    prometheus::MetricFamily taken = family->Take();
    if (!taken.metric.empty()) families.push_back(std::move(taken));
  }
  return families;
}

}  // namespace swaa::server
