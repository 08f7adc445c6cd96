// Whether the report tells what was planted, and nothing else.

#include "server/experiments/report.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "server/experiments/metric_names.h"
#include "server/experiments/report_html.h"
#include "server/experiments/report_text.h"
#include "tests/unit/server/experiments/simulated_experiment.h"

namespace swaa::server {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kThreeArms[] =
    "id: 'windows' arms { name: 'full' recipe_name: 'full' } "
    "arms { name: 'window' recipe_name: 'window' } arms { name: 'sinks' recipe_name: 'sinks' } "
    "metrics { name: 'liked' role: METRIC_ROLE_GOAL scale: METRIC_SCALE_RATE "
    "          higher_is_better: true minimum_detectable_effect: 0.05 } "
    "metrics { name: 'device_seconds' role: METRIC_ROLE_GOAL } "
    "metrics { name: 'time_to_first_token_seconds' role: METRIC_ROLE_GOAL } "
    "metrics { name: 'error_rate' role: METRIC_ROLE_GUARDRAIL maximum_harm: 0.01 } "
    "metrics { name: 'peak_kv_cache_bytes' } ";

SimulationOptions Planted() {
  return {.experiment = kThreeArms,
          .effects = {{}, {.cost = 0.5, .latency = 0.5}, {.liking = -0.15, .errors = 0.1}}};
}

v1::GetReportResponse ReportOf(const Simulation& simulation) {
  absl::StatusOr<v1::GetReportResponse> report =
      MakeReport(Merge(simulation.files), simulation.experiment.revision, kSimulationEndMs);
  EXPECT_TRUE(report.ok()) << report.status();
  return *std::move(report);
}

const v1::Comparison& Find(const v1::GetReportResponse& report, const std::string& metric,
                           const std::string& arm, bool triggered_only = false) {
  static const v1::Comparison kNone;
  for (const v1::Comparison& comparison : report.comparisons()) {
    if (comparison.metric() == metric && comparison.arm() == arm &&
        comparison.triggered_only() == triggered_only) {
      return comparison;
    }
  }
  ADD_FAILURE() << "no comparison of " << metric << " in " << arm;
  return kNone;
}

const v1::Speedup& FindSpeedup(const v1::GetReportResponse& report, const std::string& kind,
                               const std::string& metric, const std::string& arm) {
  static const v1::Speedup kNone;
  for (const v1::Speedup& speedup : report.speedups()) {
    if (speedup.kind() == kind && speedup.metric() == metric && speedup.arm() == arm) {
      return speedup;
    }
  }
  ADD_FAILURE() << "no speedup " << kind << " of " << metric << " in " << arm;
  return kNone;
}

TEST(ReportTest, TellsWhatWasPlanted) {
  const v1::GetReportResponse report = ReportOf(Simulate(Planted()));
  EXPECT_FALSE(report.sample_ratio_check().mismatch());
  ASSERT_EQ(report.arms_size(), 3);
  EXPECT_EQ(report.arms(0).requests() + report.arms(1).requests() + report.arms(2).requests(),
            20000u);

  // Half of the requests cost half: exp(ln 0.5 / 2) of all, 0.5 of the triggered. Units are counted
  // as triggered from then on, so that these hold some that are not.
  const v1::Comparison& cost = Find(report, kDeviceSeconds, "window");
  EXPECT_EQ(cost.verdict(), v1::VERDICT_BETTER);
  EXPECT_LT(cost.lower(), std::sqrt(0.5));
  EXPECT_GT(cost.upper(), std::sqrt(0.5));
  EXPECT_LT(cost.upper(), 1);
  const v1::Comparison& triggered = Find(report, kDeviceSeconds, "window", true);
  EXPECT_EQ(triggered.verdict(), v1::VERDICT_BETTER);
  EXPECT_LT(triggered.effect(), cost.effect());
  EXPECT_EQ(Find(report, "liked", "window").verdict(), v1::VERDICT_UNDECIDED);
  EXPECT_TRUE(Find(report, "liked", "window").has_further_units());

  const v1::Comparison& liked = Find(report, "liked", "sinks");
  EXPECT_EQ(liked.verdict(), v1::VERDICT_WORSE);
  EXPECT_LT(liked.lower(), -0.075);
  EXPECT_GT(liked.upper(), -0.075);
  EXPECT_LT(liked.adjusted_p_value(), 0.05);
  EXPECT_GE(liked.adjusted_p_value(), liked.p_value());
  EXPECT_EQ(Find(report, kDeviceSeconds, "sinks").verdict(), v1::VERDICT_UNDECIDED);
  EXPECT_EQ(Find(report, kErrorRate, "sinks").verdict(), v1::VERDICT_WORSE);
  EXPECT_EQ(Find(report, kErrorRate, "window").verdict(), v1::VERDICT_UNDECIDED);
  // Two judged goals, two arms, both populations; two guardrail comparisons.
  EXPECT_DOUBLE_EQ(liked.alpha(), 0.05 / 8);
  EXPECT_DOUBLE_EQ(Find(report, kErrorRate, "sinks").alpha(), 0.01 / 2);
  EXPECT_EQ(Find(report, kPeakKvCacheBytes, "window").verdict(), v1::VERDICT_UNSPECIFIED);
}

// Seven days, of which a unit's first one has an effect and the others none: the whole says that
// there is one, and only the ages tell that it does not last.
TEST(ReportTest, EffectsByUnitAgeTellNovelty) {
  SimulationOptions options = Planted();
  options.effects = {{}, {.cost = 0.25}, {}};
  options.novelty = true;
  const v1::GetReportResponse report = ReportOf(Simulate(options));
  std::map<std::string, v1::Comparison> by_age;
  for (const v1::Comparison& effect : report.effects_by_unit_age()) {
    EXPECT_EQ(effect.verdict(), v1::VERDICT_UNSPECIFIED);
    EXPECT_NE(effect.metric(), kTimeToFirstTokenSeconds) << "in a shared batch it tells nothing";
    if (effect.metric() == kDeviceSeconds && effect.arm() == "window") {
      by_age[effect.unit_age()] = effect;
    }
  }
  ASSERT_EQ(by_age.size(), 3u);
  EXPECT_LT(by_age.at("first_day").upper(), 0.75) << "half of the requests cost a quarter";
  for (const char* age : {"first_week", "later"}) {
    EXPECT_LT(by_age.at(age).lower(), 1) << age;
    EXPECT_GT(by_age.at(age).upper(), 1) << age;
  }
  EXPECT_THAT(ReportText(report), HasSubstr("days 2 to 7"));
  EXPECT_THAT(ReportHtml(report), HasSubstr("days 2 to 7"));
}

TEST(ReportTest, SpeedupsAnswerEachItsQuestion) {
  const v1::GetReportResponse report = ReportOf(Simulate(Planted()));
  // Of 1.01 million keys for two requests 0.505 million are left.
  const v1::Speedup& counted = FindSpeedup(report, "counted", kAttendedKeys, "window");
  EXPECT_NEAR(counted.ratio(), 2, 0.02);
  const v1::Speedup& attributed = FindSpeedup(report, "attributed", kDeviceSeconds, "window");
  // Triggered requests have four fifths of the device's time.
  EXPECT_LT(attributed.lower(), 1 / 0.6);
  EXPECT_GT(attributed.upper(), 1 / 0.6);
  EXPECT_GT(attributed.lower(), 1.2);
  const v1::Speedup& observed = FindSpeedup(report, "observed", kTimeToFirstTokenSeconds, "window");
  EXPECT_NEAR(observed.ratio(), std::sqrt(2), 0.1);
  EXPECT_EQ(Find(report, kTimeToFirstTokenSeconds, "window").verdict(),
            v1::VERDICT_NOT_TO_BE_TRUSTED);
  EXPECT_THAT(report.warnings(), Contains(HasSubstr("Shared batch: no verdict on "
                                                    "time_to_first_token_seconds")));
}

TEST(ReportTest, QuantilesByPromptLength) {
  const v1::GetReportResponse report = ReportOf(Simulate(Planted()));
  int of_all = 0;
  int of_classes = 0;
  for (const v1::LatencyQuantile& quantile : report.arms(0).latencies()) {
    if (quantile.metric() != kTimeToFirstTokenSeconds || quantile.quantile() != 0.5) continue;
    ++(quantile.prompt_len().empty() ? of_all : of_classes);
    ASSERT_TRUE(quantile.has_seconds());
    EXPECT_LT(quantile.lower(), quantile.seconds());
    EXPECT_GT(quantile.upper(), quantile.seconds());
    const bool is_short = quantile.prompt_len() == "le_2k";
    if (quantile.prompt_len().empty()) continue;
    EXPECT_NEAR(quantile.seconds(), is_short ? 0.5 : 2, is_short ? 0.05 : 0.2);
  }
  EXPECT_EQ(of_all, 1);
  EXPECT_EQ(of_classes, 2);
}

TEST(ReportTest, LostUnitsForbidVerdicts) {
  SimulationOptions options = Planted();
  options.lost_units = 0.2;
  const v1::GetReportResponse report = ReportOf(Simulate(options));
  EXPECT_TRUE(report.sample_ratio_check().mismatch());
  EXPECT_LT(report.sample_ratio_check().p_value(), 0.001);
  EXPECT_EQ(Find(report, kDeviceSeconds, "window").verdict(), v1::VERDICT_NOT_TO_BE_TRUSTED);
  ASSERT_FALSE(report.warnings().empty());
  EXPECT_THAT(report.warnings(0), HasSubstr("Sample ratio mismatch"));
}

TEST(ReportTest, TheLeastSampleRatioCounts) {
  Simulation simulation = Simulate(Planted());
  simulation.files[0].revisions[simulation.experiment.revision].min_log_sample_ratio_p = -9;
  EXPECT_TRUE(ReportOf(simulation).sample_ratio_check().mismatch());
}

TEST(ReportTest, UnitsInSeveralArmsForbidVerdicts) {
  Simulation simulation = Simulate(Planted());
  int changed = 0;
  for (auto& [key, unit] : simulation.files[0].observations.units) {
    if (changed++ < 60) unit.arms_seen = 3;
  }
  const v1::GetReportResponse report = ReportOf(simulation);
  EXPECT_EQ(report.sample_ratio_check().units_in_several_arms(), 60u);
  EXPECT_EQ(Find(report, "liked", "sinks").verdict(), v1::VERDICT_NOT_TO_BE_TRUSTED);
  EXPECT_THAT(report.warnings(0), HasSubstr("were in several arms"));
}

TEST(ReportTest, FourReplicasTellWhatOneTells) {
  SimulationOptions options = Planted();
  const v1::GetReportResponse one = ReportOf(Simulate(options));
  options.files = 4;
  v1::GetReportResponse four = ReportOf(Simulate(options));
  EXPECT_EQ(four.instance_ids_size(), 4);
  *four.mutable_instance_ids() = one.instance_ids();
  // Sums of reals depend on their order in the last bits, and nothing else does.
  google::protobuf::util::MessageDifferencer differencer;
  google::protobuf::util::DefaultFieldComparator comparator;
  comparator.set_float_comparison(google::protobuf::util::DefaultFieldComparator::APPROXIMATE);
  comparator.SetDefaultFractionAndMargin(1e-6, 1e-9);
  differencer.set_field_comparator(&comparator);
  std::string differences;
  differencer.ReportDifferencesToString(&differences);
  EXPECT_TRUE(differencer.Compare(one, four)) << differences;
}

TEST(ReportTest, ADifferenceBeforeTheFirstTriggerIsADefect) {
  SimulationOptions options = Planted();
  EXPECT_THAT(ReportOf(Simulate(options)).warnings(),
              Not(Contains(HasSubstr("that both recipes compute the same"))));
  // A logging defect: outcomes of one arm are recorded the wrong way round.
  Simulation simulation = Simulate(options);
  for (auto& [key, outcome] : simulation.files[0].outcomes) {
    if (outcome.scope.arm == 1) outcome.value = 1 - outcome.value;
  }
  EXPECT_THAT(ReportOf(simulation).warnings(),
              Contains(AllOf(HasSubstr("Arm window differs from full in liked"),
                             HasSubstr("that both recipes compute the same"))));
}

TEST(ReportTest, AStoppedArmIsMarked) {
  Simulation simulation = Simulate(Planted());
  const uint64_t revision = simulation.experiment.revision;
  simulation.files[0].stops[{revision, 2}] = {kSimulationEndMs - 1000, "guardrail error_rate"};
  const v1::GetReportResponse report = ReportOf(simulation);
  EXPECT_EQ(Find(report, "liked", "sinks").verdict(), v1::VERDICT_NOT_TO_BE_TRUSTED);
  EXPECT_EQ(Find(report, kErrorRate, "sinks").verdict(), v1::VERDICT_WORSE);
  EXPECT_EQ(Find(report, kDeviceSeconds, "window").verdict(), v1::VERDICT_BETTER);
  EXPECT_THAT(report.warnings(),
              Contains(HasSubstr("Arm sinks was stopped (guardrail error_rate)")));
  ASSERT_EQ(report.status().stopped_arms_size(), 1);
}

TEST(ReportTest, AStopDoesNotBreakTheSampleRatio) {
  Simulation simulation = Simulate(Planted());
  ExperimentData& data = simulation.files[0];
  const int64_t stop_ms = kSimulationStartMs + 3600 * 1000;
  data.stops[{simulation.experiment.revision, 2}] = {stop_ms, "operator"};
  std::erase_if(data.observations.units, [&](const auto& entry) {
    return entry.second.arm == 2 && entry.second.first_ms >= stop_ms;
  });
  EXPECT_FALSE(ReportOf(simulation).sample_ratio_check().mismatch());
}

TEST(ReportTest, FewUnitsAndNoneGiveNoVerdict) {
  SimulationOptions options = Planted();
  options.units = 150;
  options.requests = 600;
  const v1::GetReportResponse few = ReportOf(Simulate(options));
  EXPECT_EQ(Find(few, kDeviceSeconds, "window").verdict(), v1::VERDICT_TOO_FEW_UNITS);
  options.requests = 0;
  const v1::GetReportResponse none = ReportOf(Simulate(options));
  EXPECT_EQ(Find(none, kDeviceSeconds, "window").verdict(), v1::VERDICT_TOO_FEW_UNITS);
  EXPECT_EQ(Find(none, kDeviceSeconds, "window").lower(), 0);
  EXPECT_TRUE(std::isinf(Find(none, kDeviceSeconds, "window").upper()));
  EXPECT_TRUE(none.speedups().empty());
}

TEST(ReportTest, ASwitchbackJudgesLatencyByPairs) {
  SimulationOptions options = Planted();
  options.experiment =
      "id: 'turns' design: EXPERIMENT_DESIGN_SWITCHBACK window_seconds: 6000 washout_seconds: 600 "
      "arms { name: 'full' recipe_name: 'full' } arms { name: 'window' recipe_name: 'window' } "
      "metrics { name: 'time_to_first_token_seconds' role: METRIC_ROLE_GOAL } "
      "metrics { name: 'liked' role: METRIC_ROLE_GOAL scale: METRIC_SCALE_RATE "
      "          minimum_detectable_effect: 0.05 }";
  options.triggered = 1;
  const v1::GetReportResponse report = ReportOf(Simulate(options));
  const v1::Comparison& latency = Find(report, kTimeToFirstTokenSeconds, "window");
  EXPECT_EQ(latency.verdict(), v1::VERDICT_BETTER);
  EXPECT_LT(latency.lower(), 0.5);
  EXPECT_GT(latency.upper(), 0.5);
  EXPECT_DOUBLE_EQ(latency.alpha(), 0.05);
  EXPECT_NEAR(FindSpeedup(report, "switchback", kTimeToFirstTokenSeconds, "window").ratio(), 2,
              0.2);
  EXPECT_EQ(Find(report, "liked", "window").verdict(), v1::VERDICT_NOT_TO_BE_TRUSTED);
  EXPECT_THAT(report.warnings(), Contains(HasSubstr("No verdict on liked: users meet both arms")));
  EXPECT_FALSE(report.sample_ratio_check().mismatch());
}

TEST(ReportTest, ShadowsCompareBothDirections) {
  Simulation simulation = Simulate(Planted());
  const uint64_t revision = simulation.experiment.revision;
  auto& sums = simulation.files[0].observations.sums;
  const auto add = [&](int32_t arm, int32_t other, const char* name, int32_t group, Sum sum) {
    sums[{revision, arm, ShadowMetric(name, other), true, 1, group}] += sum;
  };
  for (int32_t group = 0; group < 200; ++group) {
    const double log_ratio = std::log(1.7) + (group % 2 == 0 ? 0.05 : -0.05);
    add(1, 0, kShadowLogTimeRatio, group, {1, log_ratio});
    add(0, 1, kShadowLogTimeRatio, group, {1, log_ratio});
    for (const int32_t arm : {0, 1}) {
      add(arm, 1 - arm, kShadowLogKvCacheBytesRatio, group, {1, std::log(4)});
      add(arm, 1 - arm, kShadowFirstDivergence, group, {1, 30});
      add(arm, 1 - arm, kShadowLogprobDifference, group, {100, arm == 0 ? 2.0 : 5.0});
      add(arm, 1 - arm, kShadowEqualArgmax, group, {100, 95});
    }
  }
  const v1::GetReportResponse report = ReportOf(simulation);
  const v1::Speedup& shadow = FindSpeedup(report, "shadow", kDeviceSeconds, "window");
  EXPECT_NEAR(shadow.ratio(), 1.7, 1e-6);
  EXPECT_LT(shadow.upper() - shadow.lower(), 0.1);
  EXPECT_EQ(shadow.samples(), 400u);
  ASSERT_EQ(report.shadow_agreements_size(), 2);
  const v1::ShadowAgreement& by_window = report.shadow_agreements(0);
  EXPECT_EQ(by_window.answered_by_arm(), "window");
  EXPECT_EQ(by_window.tokens(), 20000u);
  EXPECT_NEAR(by_window.mean_logprob_difference(), 0.05, 1e-12);
  EXPECT_NEAR(by_window.equal_argmax_ratio(), 0.95, 1e-12);
  EXPECT_NEAR(by_window.kv_cache_bytes_ratio(), 4, 1e-9);
  EXPECT_EQ(report.shadow_agreements(1).answered_by_arm(), "full");
  EXPECT_NEAR(report.shadow_agreements(1).mean_logprob_difference(), 0.02, 1e-12);
}

TEST(ReportTest, UnknownRevisionsAndExperimentsAreNamed) {
  Simulation simulation = Simulate(Planted());
  ExperimentData& data = simulation.files[0];
  EXPECT_TRUE(absl::IsNotFound(MakeReport(data, 7, kSimulationEndMs).status()));
  EXPECT_THAT(std::string(NewestRevision(data, "other").status().message()),
              HasSubstr("there is no experiment \"other\"; there are windows"));
  EXPECT_EQ(*NewestRevision(data, "windows"), simulation.experiment.revision);
  data.revisions[5] = {"windows", "", kSimulationStartMs + 1};
  EXPECT_EQ(*NewestRevision(data, "windows"), 5u);
  data.revisions[5].ended_ms = kSimulationEndMs;
  EXPECT_EQ(*NewestRevision(data, "windows"), simulation.experiment.revision);
  EXPECT_TRUE(absl::IsDataLoss(MakeReport(data, 5, kSimulationEndMs).status()));
}

}  // namespace
}  // namespace swaa::server
