// What is booked on a request: its share of the steps' time, and what its slot is told.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/schedule/scheduler_bench.h"

namespace swaa {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// By steps in flight.
class SchedulerCost : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Depths, SchedulerCost, ::testing::Values(1, 2));

// On a device whose steps take a quarter of a second a row, whatever the rows see: what is computed
// again is booked apart, and nothing is lost.
TEST_P(SchedulerCost, WhatStepsTakeIsBookedOnTheirRequests) {
  constexpr double kRowSeconds = 0.25;
  Bench bench(Info(9 * kLayers, GetParam()),
              {.max_batch_tokens = 64, .max_running_requests = 8, .max_context_tokens = kContext});
  bench.device.set_row_seconds(kRowSeconds);
  std::mt19937 random(1);
  double attributed = 0;
  double seconds_known = 0;
  const auto run = [&](std::vector<Case>* cases) {
    for (const Case& c : *cases) ASSERT_TRUE(bench.Add(c).ok());
    while (!bench.done()) {
      bench.Step();
      const StepWork& work = bench.last_step.work;
      attributed += bench.last_step.attributed_seconds;
      if (bench.last_step.attributed_seconds == 0) continue;
      seconds_known += kRowSeconds * static_cast<double>(work.prefill_tokens + work.decode_tokens);
    }
  };
  const auto make = [&](int32_t count, size_t prompt) {
    std::vector<Case> cases(count);
    for (int32_t tag = 0; tag < count; ++tag) {
      Case& c = cases[tag];
      c.request.id = std::to_string(tag);
      c.request.prompt = testing::Shared(RandomTokens(&random, prompt + 10 * tag));
      c.request.recipe = FullAttention();
      c.request.stopping = {.max_tokens = 90, .ignore_eos = true};
    }
    return cases;
  };
  // Steps of each kind, until the model knows them.
  for (int i = 0; i < 8; ++i) {
    std::vector<Case> one = make(1, 320);
    run(&one);
  }
  for (int i = 0; i < 12; ++i) {
    std::vector<Case> several = make(4, 60);
    run(&several);
  }
  attributed = seconds_known = 0;
  // Three that do not fit together.
  std::vector<Case> cases = make(3, 100);
  run(&cases);
  double booked = 0;
  double recomputed = 0;
  for (const Case& c : cases) {
    const GenerationStats& stats = c.sink->result->stats;
    ASSERT_TRUE(stats.device_seconds.has_value());
    const int32_t computed =
        stats.prompt_tokens + stats.completion_tokens - 1 - stats.cached_prompt_tokens;
    EXPECT_NEAR(*stats.device_seconds, kRowSeconds * computed, 1e-6 * *stats.device_seconds);
    EXPECT_NEAR(*stats.full_attention_device_seconds, *stats.device_seconds,
                1e-6 * *stats.device_seconds);
    EXPECT_EQ(stats.recomputed_device_seconds > 0, stats.preemptions > 0) << c.request.id;
    EXPECT_GE(stats.step_seconds, *stats.device_seconds * (1 - 1e-6));
    booked += *stats.device_seconds + stats.recomputed_device_seconds;
    recomputed += stats.recomputed_device_seconds;
  }
  EXPECT_GT(recomputed, 0);
  EXPECT_NEAR(booked, attributed, 1e-9 * booked);
  EXPECT_NEAR(attributed, seconds_known, 1e-6 * attributed);
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
