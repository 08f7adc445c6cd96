// Checks and defaults of an experiment.

#include "server/experiments/experiment_definition.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/experiments/assignment.h"
#include "server/experiments/metric_names.h"

namespace swaa::server {
namespace {

constexpr uint32_t kLeastWindowPerWashout = 5;
constexpr double kDefaultMaximumHarm = 0.01;

template <typename... Parts>
absl::Status Invalid(const std::string& path, const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", parts...));
}

bool IsLower(char c) { return 'a' <= c && c <= 'z'; }
bool IsDigit(char c) { return '0' <= c && c <= '9'; }

absl::Status CheckName(const std::string& path, const std::string& name) {
  const bool begins = !name.empty() && (IsLower(name[0]) || IsDigit(name[0]));
  const auto allowed = [](char c) {
    return IsLower(c) || IsDigit(c) || c == '_' || c == '.' || c == '-';
  };
  if (begins && name.size() <= 63 && std::all_of(name.begin(), name.end(), allowed)) {
    return absl::OkStatus();
  }
  return Invalid(path, QuotedValue(name),
                 " is not of the form [a-z0-9][a-z0-9_.-]{0,62}; choose such a name");
}

absl::Status CheckMetricName(const std::string& path, const std::string& name) {
  const auto allowed = [](char c) { return IsLower(c) || IsDigit(c) || c == '_'; };
  if (name.empty() || !IsLower(name[0]) || name.size() > 63 ||
      !std::all_of(name.begin(), name.end(), allowed)) {
    return Invalid(path, QuotedValue(name),
                   " is not of the form [a-z][a-z0-9_]{0,62}; choose such a name");
  }
  if (IsReservedMetric(name)) {
    return Invalid(path, name, " is what the server itself records for reports; choose another");
  }
  return absl::OkStatus();
}

absl::Status DefineArms(const RecipeView& recipes, const std::string& path,
                        ExperimentDefinition* definition) {
  v1::Experiment& experiment = definition->experiment;
  if (experiment.arms_size() < 2 || experiment.arms_size() > kMaxArms) {
    return Invalid(path, experiment.arms_size(), " arms; an experiment has 2 to ", kMaxArms);
  }
  std::set<std::string> names;
  for (int i = 0; i < experiment.arms_size(); ++i) {
    v1::ExperimentArm& arm = *experiment.mutable_arms(i);
    const std::string at = absl::StrCat(path, "[", i, "]");
    SWAA_RETURN_IF_ERROR(CheckName(absl::StrCat(at, ".name"), arm.name()));
    if (!names.insert(arm.name()).second) {
      return Invalid(absl::StrCat(at, ".name"), arm.name(),
                     " is another arm's name too; give each its own");
    }
    if (!arm.has_weight()) arm.set_weight(1);
    if (arm.weight() == 0) {
      return Invalid(absl::StrCat(at, ".weight"),
                     "0 gives the arm no units; set at least 1, or drop the arm");
    }
    std::optional<ArmRecipe> recipe = recipes.find(arm.recipe_name());
    if (!recipe.has_value()) {
      return Invalid(absl::StrCat(at, ".recipe_name"), "there is no recipe ",
                     QuotedValue(arm.recipe_name()), "; there are ", recipes.names);
    }
    definition->recipes.push_back(*std::move(recipe));
  }
  return absl::OkStatus();
}

absl::Status CheckLayer(const std::string& path, v1::Experiment* experiment) {
  if (!experiment->has_layer_begin()) experiment->set_layer_begin(0);
  if (!experiment->has_layer_end()) experiment->set_layer_end(kBuckets);
  if (experiment->layer_end() > kBuckets || experiment->layer_begin() >= experiment->layer_end()) {
    return Invalid(absl::StrCat(path, ".layer_begin"), "[", experiment->layer_begin(), ", ",
                   experiment->layer_end(), ") is no range of buckets; take 0 <= layer_begin < ",
                   "layer_end <= ", kBuckets);
  }
  return absl::OkStatus();
}

absl::Status CheckCoverage(const std::string& path, v1::Experiment* experiment) {
  if (!experiment->has_coverage()) experiment->set_coverage(kBuckets);
  const uint32_t coverage = experiment->coverage();
  if (coverage > kBuckets) {
    return Invalid(absl::StrCat(path, ".coverage"), coverage, " of ", kBuckets,
                   " buckets; take at most ", kBuckets);
  }
  if (coverage == 0 || experiment->design() == v1::EXPERIMENT_DESIGN_SWITCHBACK) {
    return absl::OkStatus();
  }
  std::vector<uint32_t> weights;
  for (const v1::ExperimentArm& arm : experiment->arms()) weights.push_back(arm.weight());
  const std::vector<BucketRange> ranges = ArmRanges(weights, coverage);
  for (size_t i = 0; i < ranges.size(); ++i) {
    if (ranges[i].size() > 0) continue;
    return Invalid(absl::StrCat(path, ".arms[", i, "].weight"), weights[i],
                   " gives the arm none of ", kBuckets, " buckets at coverage ", coverage,
                   "; raise the weight or the coverage, or set coverage 0 to pause");
  }
  return absl::OkStatus();
}

absl::Status CheckSwitchback(const std::string& path, const v1::Experiment& experiment) {
  if (experiment.arms_size() != 2) {
    return Invalid(absl::StrCat(path, ".arms"), experiment.arms_size(),
                   " arms with EXPERIMENT_DESIGN_SWITCHBACK; it takes two by turns, so leave two");
  }
  for (int i = 0; i < 2; ++i) {
    if (experiment.arms(i).weight() != experiment.arms(0).weight()) {
      return Invalid(absl::StrCat(path, ".arms[", i, "].weight"), experiment.arms(i).weight(),
                     " differs, but a switchback gives both arms equally many windows; drop the ",
                     "weights");
    }
  }
  const uint64_t washout = experiment.washout_seconds();
  if (experiment.window_seconds() == 0) {
    return Invalid(absl::StrCat(path, ".window_seconds"),
                   "absent with EXPERIMENT_DESIGN_SWITCHBACK; set how long an arm has all traffic");
  }
  if (experiment.window_seconds() < kLeastWindowPerWashout * washout) {
    return Invalid(absl::StrCat(path, ".washout_seconds"), washout, " of windows of ",
                   experiment.window_seconds(), "; take at most a fifth of window_seconds");
  }
  return absl::OkStatus();
}

absl::Status CheckDesign(const std::string& path, v1::Experiment* experiment) {
  switch (experiment->design()) {
    case v1::EXPERIMENT_DESIGN_UNSPECIFIED:
    case v1::EXPERIMENT_DESIGN_UNIT:
      experiment->set_design(v1::EXPERIMENT_DESIGN_UNIT);
      if (experiment->window_seconds() != 0 || experiment->washout_seconds() != 0) {
        return Invalid(absl::StrCat(path, ".window_seconds"), "windows are a switchback's; set ",
                       "design: EXPERIMENT_DESIGN_SWITCHBACK, or drop window_seconds and ",
                       "washout_seconds");
      }
      return absl::OkStatus();
    case v1::EXPERIMENT_DESIGN_SWITCHBACK:
      return CheckSwitchback(path, *experiment);
    default:
      return Invalid(absl::StrCat(path, ".design"), static_cast<int>(experiment->design()),
                     " is no value of ExperimentDesign; take EXPERIMENT_DESIGN_UNIT or ",
                     "EXPERIMENT_DESIGN_SWITCHBACK");
  }
}

absl::Status CheckTimes(const std::string& path, const v1::Experiment& experiment) {
  for (const auto& [field, time] : {std::pair{"start_time", &experiment.start_time()},
                                    std::pair{"end_time", &experiment.end_time()}}) {
    if (time->seconds() < 0 || time->seconds() >= 253402300800 || time->nanos() < 0 ||
        time->nanos() >= 1000000000) {
      return Invalid(absl::StrCat(path, ".", field), time->seconds(),
                     " seconds is no time of the years 1970 to 9999; take one");
    }
  }
  if (experiment.has_start_time() && experiment.has_end_time() &&
      ToUnixMs(experiment.start_time()) >= ToUnixMs(experiment.end_time())) {
    return Invalid(absl::StrCat(path, ".end_time"),
                   "not after start_time, so nobody would take part; set a later one");
  }
  return absl::OkStatus();
}

void AddDefaultMetric(const char* name, v1::MetricRole role, v1::Experiment* experiment) {
  v1::ExperimentMetric& metric = *experiment->add_metrics();
  metric.set_name(name);
  metric.set_role(role);
  if (role == v1::METRIC_ROLE_GUARDRAIL) metric.set_maximum_harm(kDefaultMaximumHarm);
}

void AddDefaultMetrics(v1::Experiment* experiment) {
  for (const char* goal : {kDeviceSeconds, kTimeToFirstTokenSeconds, kInterTokenLatencySeconds,
                           kRequestDurationSeconds}) {
    AddDefaultMetric(goal, v1::METRIC_ROLE_GOAL, experiment);
  }
  AddDefaultMetric(kErrorRate, v1::METRIC_ROLE_GUARDRAIL, experiment);
  AddDefaultMetric(kCancelledRate, v1::METRIC_ROLE_GUARDRAIL, experiment);
}

absl::Status DefineScale(const std::string& path, v1::ExperimentMetric* metric) {
  if (!v1::MetricScale_IsValid(metric->scale())) {
    return Invalid(absl::StrCat(path, ".scale"), static_cast<int>(metric->scale()),
                   " is no value of MetricScale; take METRIC_SCALE_MEAN, METRIC_SCALE_LOG_MEAN or ",
                   "METRIC_SCALE_RATE");
  }
  const ServerMetric* measured = FindServerMetric(metric->name());
  if (metric->scale() == v1::METRIC_SCALE_UNSPECIFIED) {
    metric->set_scale(measured != nullptr ? measured->scale : v1::METRIC_SCALE_MEAN);
  }
  if (measured != nullptr && metric->scale() != measured->scale) {
    return Invalid(absl::StrCat(path, ".scale"), v1::MetricScale_Name(metric->scale()), ", but ",
                   metric->name(), " is summed as ", v1::MetricScale_Name(measured->scale),
                   "; drop the field");
  }
  return absl::OkStatus();
}

absl::Status DefineEffects(const std::string& path, v1::ExperimentMetric* metric) {
  const ServerMetric* measured = FindServerMetric(metric->name());
  if (metric->minimum_detectable_effect() == 0 && measured != nullptr) {
    metric->set_minimum_detectable_effect(measured->default_minimum_detectable_effect);
  }
  const double effect = metric->minimum_detectable_effect();
  if (!std::isfinite(effect) || effect <= 0) {
    return Invalid(absl::StrCat(path, ".minimum_detectable_effect"), effect,
                   " for an outcome; set the least difference that is worth knowing, above 0");
  }
  if (metric->role() != v1::METRIC_ROLE_GUARDRAIL) {
    if (!metric->has_maximum_harm()) return absl::OkStatus();
    return Invalid(absl::StrCat(path, ".maximum_harm"), metric->maximum_harm(),
                   " without a guardrail; set role: METRIC_ROLE_GUARDRAIL, or drop the field");
  }
  if (!metric->has_maximum_harm()) metric->set_maximum_harm(0);
  if (!std::isfinite(metric->maximum_harm()) || metric->maximum_harm() < 0) {
    return Invalid(absl::StrCat(path, ".maximum_harm"), metric->maximum_harm(),
                   " is no harm; set 0 or more, on the metric's scale");
  }
  return absl::OkStatus();
}

absl::Status DefineMetrics(const std::string& path, v1::Experiment* experiment) {
  if (experiment->metrics().empty()) AddDefaultMetrics(experiment);
  std::set<std::string> names;
  for (int i = 0; i < experiment->metrics_size(); ++i) {
    v1::ExperimentMetric* metric = experiment->mutable_metrics(i);
    const std::string at = absl::StrCat(path, "[", i, "]");
    SWAA_RETURN_IF_ERROR(CheckMetricName(absl::StrCat(at, ".name"), metric->name()));
    if (!names.insert(metric->name()).second) {
      return Invalid(absl::StrCat(at, ".name"), metric->name(),
                     " is declared twice; leave one of them");
    }
    if (!v1::MetricRole_IsValid(metric->role())) {
      return Invalid(absl::StrCat(at, ".role"), static_cast<int>(metric->role()),
                     " is no value of MetricRole; take METRIC_ROLE_GOAL, METRIC_ROLE_GUARDRAIL or ",
                     "METRIC_ROLE_INFORMATION");
    }
    if (metric->role() == v1::METRIC_ROLE_UNSPECIFIED) {
      metric->set_role(v1::METRIC_ROLE_INFORMATION);
    }
    SWAA_RETURN_IF_ERROR(DefineScale(at, metric));
    SWAA_RETURN_IF_ERROR(DefineEffects(at, metric));
  }
  return absl::OkStatus();
}

absl::Status DefineRest(const std::string& path, v1::Experiment* experiment) {
  if (experiment->salt().empty()) experiment->set_salt(experiment->id());
  SWAA_RETURN_IF_ERROR(CheckName(absl::StrCat(path, ".salt"), experiment->salt()));
  if (experiment->salt() == kLayerSalt) {
    return Invalid(absl::StrCat(path, ".salt"), kLayerSalt,
                   " is what the layer is salted with, so arms would follow the layer's buckets; ",
                   "set another salt");
  }
  if (!experiment->has_alpha()) experiment->set_alpha(0.05);
  if (!(experiment->alpha() > 0 && experiment->alpha() <= 0.5)) {
    return Invalid(absl::StrCat(path, ".alpha"), experiment->alpha(),
                   " is outside (0, 0.5]; 0.05 is common");
  }
  SWAA_RETURN_IF_ERROR(CheckLayer(path, experiment));
  SWAA_RETURN_IF_ERROR(CheckDesign(path, experiment));
  SWAA_RETURN_IF_ERROR(CheckCoverage(path, experiment));
  SWAA_RETURN_IF_ERROR(CheckTimes(path, *experiment));
  return DefineMetrics(absl::StrCat(path, ".metrics"), experiment);
}

}  // namespace

absl::StatusOr<ExperimentDefinition> DefineExperiment(const v1::Experiment& proto,
                                                      const RecipeView& recipes,
                                                      const std::string& path) {
  ExperimentDefinition definition;
  definition.experiment = proto;
  v1::Experiment& experiment = definition.experiment;
  SWAA_RETURN_IF_ERROR(CheckName(absl::StrCat(path, ".id"), experiment.id()));
  SWAA_RETURN_IF_ERROR(DefineArms(recipes, absl::StrCat(path, ".arms"), &definition));
  if (experiment.control_arm().empty()) experiment.set_control_arm(experiment.arms(0).name());
  definition.control = FindArm(experiment, experiment.control_arm());
  if (definition.control < 0) {
    return Invalid(absl::StrCat(path, ".control_arm"), "there is no arm ",
                   QuotedValue(experiment.control_arm()), "; name one of the arms");
  }
  SWAA_RETURN_IF_ERROR(DefineRest(path, &experiment));
  definition.trigger_positions = TriggerPositions(definition.recipes);
  definition.content_hash = ContentHash(definition);
  return definition;
}

int32_t FindArm(const v1::Experiment& experiment, const std::string& name) {
  for (int i = 0; i < experiment.arms_size(); ++i) {
    if (experiment.arms(i).name() == name) return i;
  }
  return -1;
}

int64_t ToUnixMs(const google::protobuf::Timestamp& time) {
  return time.seconds() * 1000 + time.nanos() / 1000000;
}

std::string QuotedValue(const std::string& text) {
  constexpr size_t kMaxBytes = 120;
  const std::string cut = text.size() <= kMaxBytes ? text : text.substr(0, kMaxBytes) + "...";
  return absl::StrCat("\"", absl::CHexEscape(cut), "\"");
}

}  // namespace swaa::server
