// Shadows: computed alone, behind everybody, leaving no trace but their results.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/schedule/scheduler_bench.h"
#include "tests/unit/testing/random_recipe.h"
#include "tests/unit/testing/seed.h"

namespace swaa {
namespace {

Case MakeCase(std::mt19937* random, const std::string& id, size_t prompt_tokens,
              int32_t output_tokens, const Recipe& recipe) {
  Case c;
  c.request.id = id;
  c.request.recipe = recipe;
  c.request.recipe_label = recipe.window.has_value() ? "window" : "full";
  c.request.stopping = {.max_tokens = static_cast<uint32_t>(output_tokens), .ignore_eos = true};
  std::vector<int32_t> prompt = RandomTokens(random, prompt_tokens);
  c.expected = testing::ReferenceOutput(prompt, {}, recipe, output_tokens, true);
  c.request.prompt = testing::Shared(std::move(prompt));
  return c;
}

// The answer under its own recipe, scored.
Case MakeShadow(std::mt19937* random, const std::string& id, size_t prompt_tokens,
                int32_t output_tokens, const Recipe& recipe) {
  Case c = MakeCase(random, id, prompt_tokens, output_tokens, recipe);
  c.request.request_class = RequestClass::kShadow;
  c.request.forced_output = c.expected;
  c.request.output_logprobs = 1;
  return c;
}

// By steps in flight.
class SchedulerShadow : public ::testing::TestWithParam<int> {
 protected:
  int depth() const { return GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(Depths, SchedulerShadow, ::testing::Values(1, 2, 3));

TEST_P(SchedulerShadow, IsComputedAloneAndDelaysNobodyByMoreThanAStep) {
  const uint32_t seed = testing::Seed();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  // Short of pages, so that shadows are preempted, too.
  Bench bench(Info(70, depth(), 4),
              {.max_batch_tokens = 128, .max_running_requests = 4, .max_context_tokens = kContext});
  std::vector<Case> cases;
  std::vector<Case> shadows;
  int shadow_steps = 0;
  int since_serving = 0;  // shadow steps committed while a serving request was there
  const auto step = [&] {
    const bool busy = bench.scheduler.Load().running + bench.scheduler.Load().queued > 0;
    if (!busy) since_serving = 0;
    const int64_t before = bench.device.steps();
    bench.Step();
    if (bench.device.steps() == before || !bench.last_step.shadow) return;
    ++shadow_steps;
    // Rows on both sides of its prompt's end are two sequences of one slot.
    const auto& sequences = bench.device.last_step().sequences;
    EXPECT_EQ(sequences.front().slot, sequences.back().slot);
    EXPECT_LE(sequences.size(), 2u);
    since_serving += busy ? 1 : 0;
    EXPECT_LE(since_serving, 1);
  };
  for (int i = 0; i < 60; ++i) {
    if (random() % 2 == 0) {
      shadows.push_back(MakeShadow(&random, "shadow" + std::to_string(i), 1 + random() % 500,
                                   1 + static_cast<int32_t>(random() % 40),
                                   testing::RandomRecipe(&random, kLayers)));
      ASSERT_TRUE(bench.Add(shadows.back()).ok());
    } else {
      cases.push_back(MakeCase(&random, "r" + std::to_string(i), 1 + random() % 500,
                               1 + static_cast<int32_t>(random() % 40),
                               testing::RandomRecipe(&random, kLayers)));
      ASSERT_TRUE(bench.Add(cases.back()).ok());
      since_serving = 0;
    }
    for (int steps = random() % 30; steps > 0; --steps) step();
    const EngineLoad load = bench.scheduler.Load();
    int32_t live = 0;
    for (const Case& c : cases) live += c.sink->ended ? 0 : 1;
    EXPECT_EQ(load.running + load.queued, live) << "shadows are in no load";
    int32_t labelled = 0;
    for (const auto& [label, recipe] : load.recipes) labelled += recipe.running + recipe.queued;
    EXPECT_EQ(labelled, live);
  }
  while (!bench.done()) step();
  bench.ExpectNothingHeld();
  EXPECT_GT(shadow_steps, 20);
  EXPECT_EQ(bench.scheduler.Load().cached_blocks > 0, !cases.empty());
  for (const std::vector<Case>* list : {&cases, &shadows}) {
    for (const Case& c : *list) {
      ASSERT_TRUE(c.sink->result.has_value()) << c.request.id << " " << c.sink->status;
      EXPECT_EQ(c.sink->output, c.expected) << c.request.id;
    }
  }
}

TEST_P(SchedulerShadow, NeitherReadsNorFillsThePrefixCache) {
  std::mt19937 random(3);
  Bench bench(Info(4000, depth()),
              {.max_batch_tokens = 512, .max_running_requests = 4, .max_context_tokens = kContext});
  Case shadow = MakeShadow(&random, "shadow", 600, 8, FullAttention());
  ASSERT_TRUE(bench.Add(shadow).ok());
  bench.RunToEnd();
  EXPECT_EQ(bench.scheduler.Load().cached_blocks, 0);

  Case real = shadow;
  real.sink = std::make_shared<testing::RecordingSink>();
  real.request.id = "real";
  real.request.request_class = RequestClass::kServing;
  ASSERT_TRUE(bench.Add(real).ok());
  bench.RunToEnd();
  EXPECT_EQ(real.sink->result->stats.cached_prompt_tokens, 0);
  const int64_t blocks = bench.scheduler.Load().cached_blocks;
  EXPECT_GT(blocks, 0);

  shadow.sink = std::make_shared<testing::RecordingSink>();
  ASSERT_TRUE(bench.Add(shadow).ok());
  bench.RunToEnd();
  EXPECT_EQ(shadow.sink->result->stats.cached_prompt_tokens, 0);
  EXPECT_EQ(bench.scheduler.Load().cached_blocks, blocks);
}

TEST_P(SchedulerShadow, GivesWayToARequestThatNeedsEverything) {
  std::mt19937 random(4);
  // One page a block and layer for 640 positions, one slot.
  Bench bench(Info(10 * kLayers, depth(), 1),
              {.max_batch_tokens = 64, .max_running_requests = 1, .max_context_tokens = kContext});
  Case shadow = MakeShadow(&random, "shadow", 600, 8, FullAttention());
  Case real = MakeCase(&random, "real", 600, 8, FullAttention());
  ASSERT_TRUE(bench.Add(shadow).ok());
  for (int i = 0; i < 5; ++i) bench.Step();
  ASSERT_TRUE(bench.Add(real).ok());
  while (!real.sink->ended) bench.Step();
  EXPECT_FALSE(shadow.sink->ended);
  bench.RunToEnd();
  EXPECT_EQ(real.sink->output, real.expected);
  EXPECT_EQ(shadow.sink->output, shadow.expected);
  EXPECT_EQ(bench.scheduler.Load().preemptions, 0) << "of serving requests";
  EXPECT_EQ(shadow.sink->result->stats.preemptions, 1);
}

TEST_P(SchedulerShadow, IsDroppedByADrain) {
  std::mt19937 random(5);
  Bench bench(Info(400, depth()),
              {.max_batch_tokens = 64, .max_running_requests = 4, .max_context_tokens = kContext});
  std::vector<Case> shadows;
  for (int i = 0; i < 3; ++i) {
    shadows.push_back(MakeShadow(&random, "shadow" + std::to_string(i), 300, 8, FullAttention()));
    ASSERT_TRUE(bench.Add(shadows.back()).ok());
  }
  for (int i = 0; i < 3; ++i) bench.Step();
  bench.scheduler.DropShadows(absl::UnavailableError("draining"));
  bench.RunToEnd();
  for (const Case& c : shadows) EXPECT_TRUE(absl::IsUnavailable(c.sink->status)) << c.request.id;
}

}  // namespace
}  // namespace swaa
