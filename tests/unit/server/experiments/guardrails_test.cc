// Guardrails: they stop what does harm, and hardly ever what does none.

#include "server/experiments/guardrails.h"

#include <random>

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include "server/experiments/metric_names.h"

namespace swaa::server {
namespace {

ExperimentSet MakeSet(const std::string& metrics) {
  google::protobuf::RepeatedPtrField<v1::Experiment> protos;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(
      "id: 'e' arms { name: 'a' recipe_name: 'full' } arms { name: 'b' recipe_name: 'full' }" +
          metrics,
      protos.Add()));
  auto set = ExperimentSet::Create(
      protos, {[](const std::string&) { return ArmRecipe{*ResolveRecipe({}, 4)}; }, "full"}, 0);
  EXPECT_TRUE(set.ok()) << set.status();
  return *std::move(set);
}

// How often one of `runs` stopped, looked at every 200 requests up to 4,000, whose arms fail by
// chance at these rates.
int Stops(const ExperimentSet& set, int runs, double control_rate, double treated_rate) {
  int stopped = 0;
  for (int run = 0; run < runs; ++run) {
    std::mt19937 random(run);
    std::map<SumKey, Sum> totals;
    bool stop = false;
    for (int i = 1; i <= 4000 && !stop; ++i) {
      const int32_t arm = static_cast<int32_t>(random() % 2);
      const double rate = arm == 0 ? control_rate : treated_rate;
      const bool failed = std::uniform_real_distribution<double>()(random) < rate;
      totals[{1, arm, kErrorRate, false, 0, static_cast<int32_t>(random() % kUnitGroups)}] +=
          Sum{1, failed ? 1.0 : 0.0};
      if (i % 200 == 0) {
        stop = !FindGuardrailBreaches(set.experiments()[0], totals, {i / 2, i / 2}).empty();
      }
    }
    stopped += stop ? 1 : 0;
  }
  return stopped;
}

TEST(Guardrails, StopHarmAndHardlyEverWhatDoesNone) {
  const ExperimentSet set = MakeSet(
      "metrics { name: 'error_rate' role: METRIC_ROLE_GUARDRAIL scale: METRIC_SCALE_RATE "
      "minimum_detectable_effect: 0.05 }");
  EXPECT_LE(Stops(set, 200, 0.1, 0.1), 4) << "1 % is what is allowed";
  EXPECT_EQ(Stops(set, 50, 0.1, 0.25), 50);
  EXPECT_EQ(Stops(set, 50, 0.25, 0.1), 0) << "a gain is no harm";
  EXPECT_LE(Stops(set, 200, 0.02, 0.02), 4);
  EXPECT_EQ(Stops(set, 50, 0, 0.3), 50) << "a control that never fails has no ones";
  EXPECT_EQ(Stops(set, 50, 0.1, 1), 50) << "an arm that always does has no zeros";
}

TEST(Guardrails, AllowTheHarmThatTheyAreToldTo) {
  const ExperimentSet set = MakeSet(
      "metrics { name: 'error_rate' role: METRIC_ROLE_GUARDRAIL scale: METRIC_SCALE_RATE "
      "minimum_detectable_effect: 0.05 maximum_harm: 0.2 }");
  EXPECT_EQ(Stops(set, 50, 0.1, 0.25), 0);
  EXPECT_EQ(Stops(set, 20, 0.1, 0.6), 20);
}

TEST(Guardrails, JudgeNothingBeforeThereAreUnitsEnough) {
  const ExperimentSet set = MakeSet(
      "metrics { name: 'error_rate' role: METRIC_ROLE_GUARDRAIL scale: METRIC_SCALE_RATE "
      "minimum_detectable_effect: 0.05 }");
  std::map<SumKey, Sum> totals;
  for (int32_t group = 0; group < kUnitGroups; ++group) {
    totals[{1, 0, kErrorRate, false, 0, group}] = {10, group % 8 == 0 ? 1.0 : 0.0};
    totals[{1, 1, kErrorRate, false, 0, group}] = {10, 9};
  }
  const ActiveExperiment& experiment = set.experiments()[0];
  EXPECT_TRUE(FindGuardrailBreaches(experiment, totals, {99, 1000}).empty());
  EXPECT_TRUE(FindGuardrailBreaches(experiment, totals, {1000, 99}).empty());
  std::map<SumKey, Sum> few;
  few[{1, 0, kErrorRate, false, 0, 1}] = few[{1, 0, kErrorRate, false, 0, 2}] = {60, 0};
  few[{1, 1, kErrorRate, false, 0, 1}] = few[{1, 1, kErrorRate, false, 0, 2}] = {60, 12};
  EXPECT_TRUE(FindGuardrailBreaches(experiment, few, {1000, 1000}).empty()) << "24 ones";
  const auto breaches = FindGuardrailBreaches(experiment, totals, {100, 100});
  ASSERT_EQ(breaches.size(), 1u);
  EXPECT_EQ(breaches[0].arm, 1);
  EXPECT_THAT(breaches[0].reason, ::testing::HasSubstr("error_rate"));
}

TEST(LatencyGuardrail, WantsFiveSlowMinutesInARow) {
  LatencyGuardrail guardrail;
  const auto minute = [&](int64_t at, double p95) {
    for (int i = 0; i < 100; ++i) guardrail.Observe(i < 90 ? 0.01 : p95, at * 60'000 + 600 * i);
  };
  for (int64_t at = 1; at <= 4; ++at) minute(at, 3);
  EXPECT_FALSE(guardrail.IsBreached(2, 5 * 60'000)) << "four only";
  minute(5, 3);
  EXPECT_FALSE(guardrail.IsBreached(2, 5 * 60'000 + 59'000)) << "the fifth is not over";
  EXPECT_TRUE(guardrail.IsBreached(2, 6 * 60'000));
  EXPECT_FALSE(guardrail.IsBreached(4, 6 * 60'000));
  minute(6, 1);
  EXPECT_FALSE(guardrail.IsBreached(2, 7 * 60'000)) << "a fast one between";
  EXPECT_FALSE(guardrail.IsBreached(2, 20 * 60'000)) << "no requests at all";
}

}  // namespace
}  // namespace swaa::server
