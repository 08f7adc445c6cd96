// Simulated traffic through the real assignment into recorded sums, sketches, units and outcomes.

#include "tests/unit/server/experiments/simulated_experiment.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <set>

#include <google/protobuf/text_format.h>

#include "base/check.h"
#include "server/experiments/metric_names.h"
#include "server/experiments/statistics/quantile_sketch.h"
#include "server/experiments/storage/accumulate.h"

namespace swaa::server {
namespace {

constexpr int32_t kLayers = 4;

std::optional<ArmRecipe> FindRecipe(const std::string& name) {
  RecipeSpec spec;
  if (name == "window") spec.sliding_window_tokens = 2048;
  if (name == "sinks") {
    spec.sliding_window_tokens = 1024;
    spec.sink_tokens = 64;
  }
  if (name != "full" && !spec.sliding_window_tokens.has_value()) return std::nullopt;
  return ArmRecipe{*ResolveRecipe(spec, kLayers)};
}

ExperimentSet Define(const std::string& text) {
  google::protobuf::RepeatedPtrField<v1::Experiment> experiments;
  SWAA_CHECK(google::protobuf::TextFormat::ParseFromString(text, experiments.Add())) << text;
  absl::StatusOr<ExperimentSet> set =
      ExperimentSet::Create(experiments, {FindRecipe, "full, sinks, window"}, kSimulationStartMs);
  SWAA_CHECK(set.ok()) << set.status();
  return *std::move(set);
}

// Records one request in one file.
class Recorder {
 public:
  Recorder(const ActiveExperiment& experiment, const Assignment& assignment, uint64_t unit_key,
           bool triggered, int32_t prompt_class, int32_t unit_age, ExperimentData* out)
      : experiment_(experiment), assignment_(assignment), out_(out) {
    scope_ = {.revision = experiment.revision,
              .arm = assignment.arm,
              .group = assignment.group,
              .unit_key = unit_key,
              .triggered = triggered,
              .prompt_class = prompt_class,
              .unit_age = unit_age};
  }

  void Expose(int64_t now_ms, bool triggered) {
    Observations one;
    one.sums[{scope_.revision, scope_.arm, kExposures, false, 0, scope_.group, 0}] = {1, 1};
    one.units[{scope_.revision, scope_.unit_key}] = {.arm = scope_.arm,
                                                     .first_ms = now_ms,
                                                     .trigger_ms = triggered ? now_ms : 0,
                                                     .arms_seen = uint64_t{1} << scope_.arm};
    Accumulate(one, &out_->observations);
  }
  void Plain(const std::string& metric, double value, int64_t count = 1) {
    out_->observations.sums[{scope_.revision, scope_.arm, metric, scope_.triggered,
                             scope_.prompt_class, scope_.group, scope_.unit_age}] += {count, value};
    const bool switchback = experiment_.proto().design() == v1::EXPERIMENT_DESIGN_SWITCHBACK;
    if (!switchback || assignment_.washout) return;
    out_->observations.pairs[{scope_.revision, metric, assignment_.pair, scope_.arm}] +=
        {count, value};
  }
  void Latency(const std::string& metric, double seconds) {
    Plain(metric, std::log(seconds));
    ++out_->observations.sketches[{scope_.revision, scope_.arm, metric, scope_.prompt_class,
                                   scope_.group / 4}][SketchBin(seconds)];
  }
  void Outcome(const std::string& request_id, const std::string& metric, double value,
               int64_t now_ms) {
    scope_.end_ms = now_ms;
    out_->outcomes[{request_id, metric}] = {value, scope_, now_ms};
  }

 private:
  const ActiveExperiment& experiment_;
  const Assignment& assignment_;
  OutcomeScope scope_;
  ExperimentData* const out_;
};

// A unit's habits.
struct Person {
  double level;
  double liking;
  bool lost;
};

}  // namespace

Simulation Simulate(const SimulationOptions& options) {
  std::mt19937_64 random(static_cast<uint64_t>(options.seed));
  std::normal_distribution<double> normal;
  std::uniform_real_distribution<double> uniform;
  const ExperimentSet set = Define(options.experiment);
  Simulation simulation{.experiment = set.experiments()[0]};
  const ActiveExperiment& experiment = simulation.experiment;
  for (int file = 0; file < options.files; ++file) {
    ExperimentData data;
    data.revisions[experiment.revision] = {experiment.proto().id(),
                                           RevisionJson(experiment.definition), kSimulationStartMs};
    data.instance_ids = {"replica-" + std::to_string(file)};
    simulation.files.push_back(data);
  }
  std::vector<Person> people;
  for (int unit = 0; unit < options.units; ++unit) {
    people.push_back(
        {0.5 * normal(random), 0.2 + 0.1 * uniform(random), uniform(random) < options.lost_units});
  }
  std::set<int> triggered_units;
  std::map<int, int64_t> first_ms;
  for (int request = 0; request < options.requests; ++request) {
    const int unit = static_cast<int>(random() % static_cast<uint64_t>(options.units));
    const Person& person = people[static_cast<size_t>(unit)];
    const int64_t now_ms = kSimulationStartMs + (kSimulationEndMs - kSimulationStartMs) *
                                                    int64_t{request} / options.requests;
    const Assignment assignment = set.Assign("user-" + std::to_string(unit), now_ms, {});
    const bool triggered = uniform(random) < options.triggered;
    const double noise = normal(random);
    const double load = 0.3 * std::sin(now_ms / 3.6e6);
    const double like = uniform(random);
    const double fail = uniform(random);
    if (assignment.enrolment != Enrolment::kAssigned) continue;
    if (assignment.arm == 1 && person.lost) continue;
    if (triggered) triggered_units.insert(unit);
    const int32_t age = UnitAgeIndex(first_ms.try_emplace(unit, now_ms).first->second, now_ms);
    const bool changes = triggered && !(options.novelty && age > 0);
    const ArmEffect effect =
        changes ? options.effects[static_cast<size_t>(assignment.arm)] : ArmEffect{};
    Recorder recorder(experiment, assignment, static_cast<uint64_t>(unit) + 1,
                      triggered_units.contains(unit), triggered ? 1 : 0, age,
                      &simulation.files[static_cast<size_t>(request % options.files)]);
    recorder.Expose(now_ms, triggered);
    const double seconds = std::exp(person.level + 0.7 * noise) * (triggered ? 2 : 0.5);
    recorder.Plain(kDeviceSeconds, std::log(seconds * effect.cost));
    recorder.Plain(kTotalDeviceSeconds, seconds * effect.cost);
    for (const char* latency : kSketchedMetrics) {
      recorder.Latency(latency, seconds * effect.latency * std::exp(load));
    }
    const double keys = triggered ? 1e6 : 1e4;
    recorder.Plain(kAttendedKeys, keys * effect.cost);
    recorder.Plain(kFullAttentionAttendedKeys, keys);
    recorder.Plain(kErrorRate, fail < 0.02 + effect.errors ? 1 : 0);
    recorder.Plain(kCancelledRate, 0);
    recorder.Plain(kPeakKvCacheBytes, 1e6 * effect.cost);
    recorder.Plain(kCachedPromptRatio, 0.5);
    recorder.Plain(kPreemptions, 0);
    recorder.Outcome("request-" + std::to_string(request), "liked",
                     like < person.liking + effect.liking ? 1 : 0, now_ms);
  }
  return simulation;
}

ExperimentData Merge(const std::vector<ExperimentData>& files) {
  ExperimentData merged = files.front();
  for (size_t i = 1; i < files.size(); ++i) {
    Accumulate(files[i].observations, &merged.observations);
    merged.outcomes.insert(files[i].outcomes.begin(), files[i].outcomes.end());
    merged.instance_ids.insert(merged.instance_ids.end(), files[i].instance_ids.begin(),
                               files[i].instance_ids.end());
  }
  return merged;
}

}  // namespace swaa::server
