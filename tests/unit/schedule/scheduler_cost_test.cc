// What is booked on a request: its share of the steps' time, and what its slot is told.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/schedule/step_cost.h"
#include "tests/unit/schedule/scheduler_bench.h"

namespace swaa {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(ShareStepTime, SharesByWeightAndAddsUp) {
  const StepCostWeights weights{.row = 2, .attended_key = 0.5, .logits = 1};
  // Weights 5, 2 and 3 of 10.
  const std::vector<StepWork> work = {
      {.rows = 1, .attended_keys = 4, .logits = 1}, {.rows = 1}, {.rows = 1, .attended_keys = 2}};
  EXPECT_THAT(ShareStepTime(weights, work, 20),
              ElementsAre(DoubleNear(10, 1e-12), DoubleNear(4, 1e-12), DoubleNear(6, 1e-12)));
  EXPECT_THAT(ShareStepTime(weights, {{}, {}}, 20), ElementsAre(0, 0));
}

// By steps in flight.
class SchedulerCost : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Depths, SchedulerCost, ::testing::Values(1, 2));

// Three that do not fit together: what is computed again is booked apart, and nothing is lost.
TEST_P(SchedulerCost, AllTimeOfAllStepsIsBooked) {
  constexpr double kRowSeconds = 0.25;
  Bench bench(Info(9 * kLayers, GetParam()),
              {.max_batch_tokens = 512, .max_running_requests = 8, .max_context_tokens = kContext});
  bench.device.set_row_seconds(kRowSeconds);
  std::mt19937 random(1);
  std::vector<Case> cases(3);
  for (int32_t tag = 0; tag < 3; ++tag) {
    Case& c = cases[tag];
    c.request.id = std::to_string(tag);
    c.request.prompt = testing::Shared(RandomTokens(&random, tag == 0 ? 120 : 100));
    c.request.recipe = FullAttention();
    c.request.stopping = {.max_tokens = 90, .ignore_eos = true};
    ASSERT_TRUE(bench.Add(c).ok());
  }
  int64_t rows = 0;
  while (!bench.done()) {
    bench.Step();
    rows += bench.last_rows.prefill + bench.last_rows.decode;
  }
  double booked = 0;
  double recomputed = 0;
  for (const Case& c : cases) {
    const GenerationStats& stats = c.sink->result->stats;
    EXPECT_GT(stats.device_seconds, 0);
    EXPECT_EQ(stats.recomputed_device_seconds > 0, stats.preemptions > 0) << c.request.id;
    booked += stats.device_seconds + stats.recomputed_device_seconds;
    recomputed += stats.recomputed_device_seconds;
  }
  EXPECT_GT(recomputed, 0);
  EXPECT_NEAR(booked, static_cast<double>(rows) * kRowSeconds, 1e-9 * booked);
}

TEST_P(SchedulerCost, ASlotIsToldNoMoreThanItsDrawsNeed) {
  Bench bench(Info(400, GetParam()),
              {.max_batch_tokens = 512, .max_running_requests = 8, .max_context_tokens = kContext});
  std::vector<Case> cases(3);
  for (int32_t tag = 0; tag < 3; ++tag) {
    Case& c = cases[tag];
    c.request.id = std::to_string(tag);
    c.request.prompt = testing::Shared({1, 2, 3});
    c.request.forced_output = {4, 5};
    c.request.recipe = FullAttention();
    c.request.stopping = {.max_tokens = 10};
  }
  cases[1].request.sampling.presence_penalty = 1;
  cases[2].request.stopping.min_tokens = 3;
  for (const Case& c : cases) ASSERT_TRUE(bench.Add(c).ok());
  bench.Step();
  const std::vector<SlotSetup>& setups = bench.device.last_step().setups;
  ASSERT_EQ(setups.size(), 3u);
  EXPECT_EQ(setups[0].prompt, nullptr);
  EXPECT_THAT(setups[0].output, IsEmpty());
  EXPECT_THAT(setups[0].forbidden, IsEmpty());
  EXPECT_EQ(setups[1].prompt, cases[1].request.prompt) << "shared, not copied";
  EXPECT_THAT(setups[1].output, ElementsAre(4, 5));
  EXPECT_THAT(setups[2].forbidden, ElementsAre(testing::kFakeEos));
  bench.Step();
  EXPECT_THAT(bench.device.last_step().setups, IsEmpty());
}

TEST(RecipeLoads, ForgetsALabelThatNobodyUses) {
  RecipeLoads loads;
  RecipeLoad* fast = loads.Use("fast");
  fast->running = 1;
  EXPECT_EQ(loads.Use("fast"), fast);
  loads.Use("full")->queued = 2;
  loads.Release("fast");
  LoadSnapshot snapshot;
  snapshot.recipes = loads.Snapshot();
  const EngineLoad load = snapshot.ToLoad();
  ASSERT_EQ(load.recipes.size(), 2u);
  EXPECT_EQ(load.recipes.at("fast").running, 1);
  EXPECT_EQ(load.recipes.at("full").queued, 2);
  loads.Release("fast");
  loads.Release("full");
  EXPECT_TRUE(loads.Snapshot().empty());
}

}  // namespace
}  // namespace swaa
