// Who gives way to whom, and that nothing of it shows in the tokens.

#include <random>

#include <gtest/gtest.h>

#include "tests/unit/schedule/scheduler_bench.h"

namespace swaa {
namespace {

// By steps in flight.
class SchedulerPreemption : public ::testing::TestWithParam<int> {
 protected:
  int depth() const { return GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(Depths, SchedulerPreemption, ::testing::Values(1, 2, 3));

TEST_P(SchedulerPreemption, PreemptsAndComputesAgain) {
  // Two requests whose decoding outgrows the pool together, not alone.
  Bench bench(Info(7 * kLayers, depth()),
              {.max_batch_tokens = 128, .max_running_requests = 8, .max_context_tokens = kContext});
  std::mt19937 random(1);
  std::vector<Case> cases(2);
  for (int32_t tag = 0; tag < 2; ++tag) {
    Case& c = cases[tag];
    c.request.id = std::to_string(tag);
    c.request.prompt = testing::Shared(RandomTokens(&random, 128));
    c.request.recipe.layer_full = c.request.recipe.decode_full = std::vector<bool>(kLayers);
    c.request.stopping = {.max_tokens = 200, .ignore_eos = true};
    c.request.output_logprobs = 0;
    c.expected = testing::ReferenceOutput(*c.request.prompt, {}, c.request.recipe, 200, true);
    ASSERT_TRUE(bench.Add(c).ok());
  }
  bench.RunToEnd();
  EXPECT_EQ(cases[0].sink->output, cases[0].expected);
  EXPECT_EQ(cases[1].sink->output, cases[1].expected);
  EXPECT_EQ(cases[0].sink->result->stats.preemptions, 0);
  EXPECT_GT(cases[1].sink->result->stats.preemptions, 0);
  // Each log-probability was sent once.
  EXPECT_EQ(cases[1].sink->events.size(), 200u);
}

// The first of three that decode needs a page more than there are: one of the others gives way,
// with tokens under way, and what it frees is waited for instead of preempting the next as well.
TEST_P(SchedulerPreemption, PreemptsOneThatIsInFlightAndOnlyOne) {
  Bench bench(Info(9 * kLayers, depth()),
              {.max_batch_tokens = 512, .max_running_requests = 8, .max_context_tokens = kContext});
  std::mt19937 random(1);
  std::vector<Case> cases(3);
  for (int32_t tag = 0; tag < 3; ++tag) {
    Case& c = cases[tag];
    c.request.id = std::to_string(tag);
    c.request.prompt = testing::Shared(RandomTokens(&random, tag == 0 ? 120 : 100));
    c.request.recipe = FullAttention();
    c.request.stopping = {.max_tokens = 90, .ignore_eos = true};
    c.expected = testing::ReferenceOutput(*c.request.prompt, {}, c.request.recipe, 90, true);
    ASSERT_TRUE(bench.Add(c).ok());
  }
  bench.RunToEnd();
  for (const Case& c : cases) {
    EXPECT_EQ(c.sink->output, c.expected) << c.request.id;
    EXPECT_EQ(c.sink->result->stats.preemptions, c.request.id == "2" ? 1 : 0) << c.request.id;
  }
}

// A request of higher priority takes the place of one that would go on for long.
TEST_P(SchedulerPreemption, ANewcomerOfHigherPriorityRunsWithinAFewSteps) {
  Bench bench(Info(40 * kLayers, depth()),
              {.max_batch_tokens = 64, .max_running_requests = 2, .max_context_tokens = kContext});
  std::mt19937 random(6);
  std::vector<Case> cases(3);
  for (int32_t tag = 0; tag < 3; ++tag) {
    Case& c = cases[tag];
    c.request.id = std::to_string(tag);
    c.request.prompt = testing::Shared(RandomTokens(&random, tag == 0 ? 900 : 100));
    c.request.recipe = FullAttention();
    c.request.priority = tag;
    c.request.stopping = {.max_tokens = 150, .ignore_eos = true};
    c.expected = testing::ReferenceOutput(*c.request.prompt, {}, c.request.recipe, 150, true);
  }
  ASSERT_TRUE(bench.Add(cases[0]).ok());
  ASSERT_TRUE(bench.Add(cases[1]).ok());
  for (int i = 0; i < 20; ++i) bench.Step();
  ASSERT_TRUE(cases[0].sink->accepted && cases[1].sink->accepted);
  ASSERT_TRUE(bench.Add(cases[2]).ok());
  for (int i = 0; i < 2 + depth(); ++i) bench.Step();
  EXPECT_TRUE(cases[2].sink->accepted);
  bench.RunToEnd();
  for (const Case& c : cases) {
    EXPECT_EQ(c.sink->output, c.expected) << c.request.id;
    EXPECT_EQ(c.sink->result->stats.preemptions, c.request.id == "0" ? 1 : 0) << c.request.id;
  }
}

}  // namespace
}  // namespace swaa
