// Experiments while the server runs: the arms of requests, and the watch over them. What clients
// ask and tell is in experiments_service.cc.

#include "server/experiments/experiments.h"

#include <chrono>
#include <cmath>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/experiments/metric_names.h"
#include "server/experiments/outcome_token.h"
#include "server/experiments/statistics/sample_ratio.h"
#include "server/observation/memory_guard.h"
#include "server/observation/metrics.h"

namespace swaa::server {
namespace {

int64_t SystemNowMs() {
  using std::chrono::duration_cast;
  using std::chrono::milliseconds;
  return duration_cast<milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

absl::Status WithSetting(const absl::Status& status, const std::string& setting) {
  return absl::Status(status.code(), absl::StrCat(setting, ": ", std::string(status.message())));
}

bool HasStops(const Stops& stops, uint64_t revision) {
  const auto first = stops.lower_bound({revision, kAllArms});
  return first != stops.end() && first->first.revision == revision;
}

// The share of units that each arm should have; coverage is not 0.
std::vector<double> ExpectedShares(const ActiveExperiment& experiment) {
  double all = 0;
  for (const BucketRange& range : experiment.arm_ranges) all += range.size();
  std::vector<double> shares;
  for (const BucketRange& range : experiment.arm_ranges) shares.push_back(range.size() / all);
  return shares;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Experiments>> Experiments::Create(const Options& given) {
  Options options = given;
  if (!options.now_ms) options.now_ms = SystemNowMs;
  std::optional<ExperimentKey> key;
  if (options.key_file.empty()) {
    key = ExperimentKey::Random();
  } else {
    absl::StatusOr<LoadedExperimentKey> loaded = LoadExperimentKey(options.key_file);
    if (!loaded.ok()) return WithSetting(loaded.status(), "experiment_storage.key_file");
    if (!loaded->warning.empty()) LogWarning(loaded->warning);
    key = std::move(loaded->key);
  }
  if (!options.path.empty() && options.key_file.empty()) {
    return absl::InvalidArgumentError(
        "experiment_storage.path: a file that outlives the server needs a key that does, too; set "
        "experiment_storage.key_file");
  }
  std::unique_ptr<Experiments> experiments(new Experiments(options, *std::move(key)));
  ExperimentStore::Options storage;
  storage.path = options.path;
  storage.key_fingerprint = experiments->key_.fingerprint();
  storage.now_ms = options.now_ms;
  absl::StatusOr<std::unique_ptr<ExperimentStore>> store = ExperimentStore::Open(storage);
  if (!store.ok()) return WithSetting(store.status(), "experiment_storage.path");
  experiments->store_ = *std::move(store);
  if (!options.exposure_log.empty()) {
    absl::StatusOr<std::unique_ptr<ExposureLog>> log = ExposureLog::Open(options.exposure_log);
    if (!log.ok()) return WithSetting(log.status(), "experiment_storage.exposure_log");
    experiments->exposure_log_ = *std::move(log);
  }
  SWAA_RETURN_IF_ERROR(experiments->LoadStored());
  experiments->watcher_ = std::thread([watched = experiments.get()] { watched->Watch(); });
  return experiments;
}

Experiments::Experiments(const Options& options, ExperimentKey key)
    : options_(options),
      key_(std::move(key)),
      metrics_(std::make_shared<ExperimentMetrics>([this] {
        return store_->stats().dropped_observations +
               (exposure_log_ == nullptr ? 0 : exposure_log_->dropped());
      })),
      set_(std::make_shared<const ExperimentSet>()),
      stops_(std::make_shared<const Stops>()) {}

Experiments::~Experiments() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (watcher_.joinable()) watcher_.join();
  // It answers outcomes that still wait, with the help of what is below it.
  store_.reset();
}

// What stopped stays stopped, and what a revision was stays known.
absl::Status Experiments::LoadStored() {
  SWAA_ASSIGN_OR_RETURN(ExperimentData data, store_->Heads());
  std::map<std::string, int64_t> newest;
  std::lock_guard lock(mutex_);
  for (const auto& [revision, record] : data.revisions) {
    SWAA_ASSIGN_OR_RETURN(StoredRevision stored, ParseRevisionJson(record.config_json));
    const uint32_t coverage = stored.experiment.coverage();
    const std::string id = stored.experiment.id();
    revisions_[revision] = std::move(stored.experiment);
    if (newest.contains(id) && newest[id] > record.started_ms) continue;
    newest[id] = record.started_ms;
    known_[id] = {revision, stored.content_hash, coverage};
  }
  stops_ = std::make_shared<const Stops>(data.stops);
  return absl::OkStatus();
}

std::shared_ptr<const ExperimentSet> Experiments::CurrentSet() const {
  std::lock_guard lock(mutex_);
  return set_;
}

std::shared_ptr<const Stops> Experiments::CurrentStops() const {
  std::lock_guard lock(mutex_);
  return stops_;
}

void Experiments::SetStops(std::shared_ptr<const Stops> stops) {
  {
    std::lock_guard lock(mutex_);
    stops_ = std::move(stops);
  }
  UpdateMetrics();
}

void Experiments::UpdateMetrics() {
  const auto set = CurrentSet();
  const auto stops = CurrentStops();
  std::set<ExperimentMetrics::ExperimentArm> arms;
  std::set<ExperimentMetrics::ExperimentArm> stopped;
  for (const ActiveExperiment& experiment : set->experiments()) {
    for (int32_t arm = 0; arm < experiment.num_arms(); ++arm) {
      const ExperimentMetrics::ExperimentArm names = {experiment.proto().id(),
                                                      experiment.proto().arms(arm).name()};
      arms.insert(names);
      if (stops->contains({experiment.revision, arm}) ||
          stops->contains({experiment.revision, kAllArms})) {
        stopped.insert(names);
      }
    }
  }
  metrics_->SetArms(arms, stopped);
}

absl::StatusOr<ExperimentSet> Experiments::Check(
    const google::protobuf::RepeatedPtrField<v1::Experiment>& experiments,
    const RecipeView& recipes) const {
  KnownRevisions known;
  {
    std::lock_guard lock(mutex_);
    known = known_;
  }
  return ExperimentSet::Create(experiments, recipes, NowMs(), known);
}

absl::Status Experiments::Adopt(ExperimentSet set) {
  std::lock_guard adopting(adopt_mutex_);
  const auto before = CurrentSet();
  auto next = std::make_shared<const ExperimentSet>(std::move(set));
  std::set<uint64_t> revisions;
  for (const ActiveExperiment& experiment : next->experiments()) {
    revisions.insert(experiment.revision);
    SWAA_RETURN_IF_ERROR(store_->RecordRevision(experiment.revision,
                                                {.experiment_id = experiment.proto().id(),
                                                 .config_json = RevisionJson(experiment.definition),
                                                 .started_ms = NowMs()}));
    if (before->FindRevision(experiment.revision) != nullptr) continue;
    // It may have been in force before.
    SWAA_ASSIGN_OR_RETURN(const ExperimentData data, store_->Snapshot(experiment.revision));
    recorder_.Load({experiment.revision}, data);
  }
  for (const ActiveExperiment& experiment : before->experiments()) {
    if (revisions.contains(experiment.revision)) continue;
    SWAA_RETURN_IF_ERROR(store_->RecordRevisionEnd(experiment.revision, NowMs()));
  }
  for (const std::string& warning : next->warnings()) LogWarning(warning);
  {
    std::lock_guard lock(mutex_);
    set_ = next;
    for (const auto& [id, revision] : next->Known()) known_[id] = revision;
    for (const ActiveExperiment& experiment : next->experiments()) {
      revisions_[experiment.revision] = experiment.proto();
    }
  }
  recorder_.Keep(revisions);
  UpdateMetrics();
  return absl::OkStatus();
}

Experiments::Choice Experiments::Choose(const std::string& unit, const std::string& request_id) {
  const auto set = CurrentSet();
  Choice choice;
  if (set->experiments().empty()) return choice;
  const auto stops = CurrentStops();
  const int64_t now = NowMs();
  const Assignment assignment = set->Assign(unit, now, *stops);
  if (const std::string* recipe = assignment.recipe_name()) {
    const ArmRecipe& arm = assignment.experiment->definition.recipes[assignment.arm];
    choice.recipe = {.name = *recipe,
                     .recipe = arm.recipe,
                     .thinking_mode = arm.thinking_mode,
                     .lora_name = arm.lora_name};
  }
  if (assignment.enrolment != Enrolment::kAssigned) {
    metrics_->CountUnassigned(EnrolmentName(assignment.enrolment));
    return choice;
  }
  ExperimentTag& tag = choice.tag.emplace(ExperimentTag{.set = set,
                                                        .experiment = assignment.experiment,
                                                        .arm = assignment.arm,
                                                        .group = assignment.group,
                                                        .unit_key = key_.UnitKey(unit),
                                                        .pair = assignment.pair,
                                                        .washout = assignment.washout});
  metrics_->CountAssignment(tag.experiment_id(), tag.arm_name());
  store_->Add(recorder_.Expose(tag, now));
  if (exposure_log_ != nullptr) {
    exposure_log_->Write({.at_ms = now,
                          .experiment_id = tag.experiment_id(),
                          .variation_id = tag.arm_name(),
                          .unit_key = tag.unit_key,
                          .revision = tag.experiment->revision,
                          .request_id = request_id});
  }
  return choice;
}

void Experiments::CountExplicitRecipe() {
  if (!CurrentSet()->experiments().empty()) metrics_->CountUnassigned("explicit_recipe");
}

Experiments::Finish Experiments::FinishOf(const ExperimentTag& tag, const std::string& request_id,
                                          const GenerationStats& stats) {
  const OutcomeScope scope = recorder_.ScopeOf(tag, stats, NowMs());
  std::lock_guard lock(mutex_);
  if (recent_.insert_or_assign(request_id, scope).second) recent_order_.push_back(request_id);
  while (recent_order_.size() > kMostRecentRequests) {
    recent_.erase(recent_order_.front());
    recent_order_.pop_front();
  }
  return {scope.triggered, MakeOutcomeToken(key_, request_id, scope)};
}

void Experiments::OnRequestEnd(const ExperimentTag* tag, const RequestRecord& record) {
  const int64_t now = NowMs();
  if (record.stats.completion_tokens > 0) {
    std::lock_guard lock(mutex_);
    latency_.Observe(absl::ToDoubleSeconds(record.stats.time_to_first_token), now);
  }
  if (tag == nullptr) return;
  store_->Add(recorder_.End(*tag, record, step_model_error_.load(std::memory_order_relaxed), now));
}

void Experiments::OnShadow(const ExperimentTag& tag, const GenerationStats& stats,
                           const ShadowComparison& comparison) {
  store_->Add(recorder_.Shadow(tag, recorder_.ScopeOf(tag, stats, NowMs()), comparison));
}

std::optional<int32_t> Experiments::ShadowArm(const ExperimentTag& tag,
                                              const std::string& request_id) const {
  const int32_t control = tag.experiment->definition.control;
  if (tag.arm != control) return control;
  const auto stops = CurrentStops();
  std::vector<int32_t> others;
  for (int32_t arm = 0; arm < tag.experiment->num_arms(); ++arm) {
    if (arm != control && !stops->contains({tag.experiment->revision, arm})) others.push_back(arm);
  }
  if (others.empty()) return std::nullopt;
  return others[AssignmentHash("shadow-arm", request_id) % others.size()];
}

absl::Status Experiments::StopArm(const ActiveExperiment& experiment, int32_t arm,
                                  const std::string& reason) {
  const StopKey key{experiment.revision, arm};
  const StopRecord record{.at_ms = NowMs(), .reason = reason};
  // First in memory: an arm that does harm stops although the disk is full.
  auto stops = std::make_shared<Stops>(*CurrentStops());
  stops->try_emplace(key, record);
  SetStops(std::move(stops));
  LogWarning(absl::StrCat("experiment ", experiment.proto().id(), ": ",
                          arm == kAllArms ? "all arms" : experiment.proto().arms(arm).name(),
                          " stopped: ", reason));
  const absl::Status stored = store_->RecordStop(key, record);
  if (!stored.ok()) missed_stops_.insert(key);
  return stored;
}

absl::Status Experiments::StoreMissedStops(const ActiveExperiment& experiment) {
  const auto stops = CurrentStops();
  absl::Status all;
  for (int32_t arm = kAllArms; arm < experiment.num_arms(); ++arm) {
    const StopKey key{experiment.revision, arm};
    if (!missed_stops_.contains(key)) continue;
    const auto stop = stops->find(key);
    const absl::Status stored =
        stop == stops->end() ? absl::OkStatus() : store_->RecordStop(key, stop->second);
    if (stored.ok()) missed_stops_.erase(key);
    all.Update(stored);
  }
  return all;
}

void Experiments::Watch() {
  std::unique_lock lock(mutex_);
  const auto interval = absl::ToChronoMilliseconds(options_.check_interval);
  while (!wake_.wait_for(lock, interval, [&] { return stopping_; })) {
    lock.unlock();
    GuardMemory("a check of experiments", [this] { CheckNow(); });
    lock.lock();
  }
}

void Experiments::CheckNow() {
  std::lock_guard adopting(adopt_mutex_);
  const auto set = CurrentSet();
  const int64_t now = NowMs();
  bool too_slow = false;
  if (options_.max_time_to_first_token_p95 < absl::InfiniteDuration()) {
    std::lock_guard lock(mutex_);
    too_slow =
        latency_.IsBreached(absl::ToDoubleSeconds(options_.max_time_to_first_token_p95), now);
  }
  for (const ActiveExperiment& experiment : set->experiments()) {
    const auto stops = CurrentStops();
    absl::Status stored = StoreMissedStops(experiment);
    // Coverage 0 is a pause.
    if (StateOf(experiment, now, *stops) != v1::EXPERIMENT_STATE_RUNNING ||
        experiment.proto().coverage() == 0) {
      if (!stored.ok()) LogError(std::string(stored.message()));
      continue;
    }
    const auto stop = [&](int32_t arm, const std::string& reason) {
      stored.Update(StopArm(experiment, arm, reason));
      for (int32_t each = 0; each < experiment.num_arms(); ++each) {
        if (each != arm && arm != kAllArms) continue;
        metrics_->CountGuardrailStop(experiment.proto().id(), experiment.proto().arms(each).name());
      }
    };
    const std::vector<int64_t> units =
        recorder_.UnitCounts(experiment.revision, experiment.num_arms());
    if (too_slow) {
      stop(kAllArms,
           absl::StrCat("the 95th percentile of the time to the first token of all requests was "
                        "above ",
                        absl::FormatDuration(options_.max_time_to_first_token_p95), " for ",
                        LatencyGuardrail::kMinutes, " minutes"));
    } else {
      for (const GuardrailBreach& breach :
           FindGuardrailBreaches(experiment, recorder_.Totals(experiment.revision), units)) {
        if (!stops->contains({experiment.revision, breach.arm})) stop(breach.arm, breach.reason);
      }
    }
    // Once an arm is stopped the others alone take units.
    if (experiment.proto().design() == v1::EXPERIMENT_DESIGN_UNIT &&
        !HasStops(*CurrentStops(), experiment.revision)) {
      stored.Update(store_->RecordSampleRatio(
          experiment.revision,
          LogSampleRatioPValue(std::vector<uint64_t>(units.begin(), units.end()),
                               ExpectedShares(experiment))));
    }
    if (!stored.ok()) {
      LogError(absl::StrCat("experiment ", experiment.proto().id(), ": ",
                            std::string(stored.message())));
    }
  }
}

}  // namespace swaa::server
