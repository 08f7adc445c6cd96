// The scheduler on a hashing device: whatever else is in the batch, however the work is cut, short
// of pages or not, a request's tokens are those it gives alone, its pages are those its recipe can
// see, and at the end nothing is held.

#include "engine/schedule/scheduler.h"

#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/recipe/visibility.h"
#include "engine/schedule/never_fits.h"
#include "tests/unit/schedule/scheduler_bench.h"
#include "tests/unit/testing/random_recipe.h"
#include "tests/unit/testing/seed.h"

namespace swaa {
namespace {

Case RandomCase(std::mt19937* random, int32_t tag, size_t longest_prompt) {
  Case c;
  c.request.id = "r" + std::to_string(tag);
  std::vector<int32_t> prompt = RandomTokens(random, 1 + (*random)() % longest_prompt);
  prompt[0] = tag;
  c.request.recipe = testing::RandomRecipe(random, kLayers);
  c.request.recipe_label = c.request.id;
  c.request.priority = static_cast<int32_t>((*random)() % 3);
  c.request.stopping.max_tokens = 1 + (*random)() % 80;
  c.request.stopping.ignore_eos = (*random)() % 4 != 0;
  testing::ReferenceDraws draws;
  if ((*random)() % 3 == 0) {
    c.request.sampling.frequency_penalty = 1;
    draws.history = true;
  }
  if (!c.request.stopping.ignore_eos && (*random)() % 2 == 0) {
    draws.min_tokens = c.request.stopping.min_tokens =
        static_cast<uint32_t>((*random)() % *c.request.stopping.max_tokens);
    draws.forbidden = {testing::kFakeEos};
  }
  const std::vector<int32_t> all = testing::ReferenceOutput(
      prompt, {}, c.request.recipe, static_cast<int32_t>(*c.request.stopping.max_tokens),
      c.request.stopping.ignore_eos, draws);
  c.request.prompt = testing::Shared(std::move(prompt));
  if ((*random)() % 3 == 0) {
    // Part of the answer is known already: what follows must be what would have followed.
    const size_t known = (*random)() % all.size();
    c.request.forced_output.assign(all.begin(), all.begin() + known);
  }
  if ((*random)() % 4 == 0) c.request.output_logprobs = 0;
  c.expected = all;
  return c;
}

// Round, and steps in flight.
class SchedulerProperty : public ::testing::TestWithParam<std::tuple<int, int>> {
 protected:
  int round() const { return std::get<0>(GetParam()); }
  int depth() const { return std::get<1>(GetParam()); }
};

// By steps in flight.
class SchedulerTest : public ::testing::TestWithParam<int> {
 protected:
  int depth() const { return GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(Depths, SchedulerTest, ::testing::Values(1, 2, 3));

// Alone = batched = chunked = forced = preempted, for any mix of recipes.
TEST_P(SchedulerProperty, TokensDoNotDependOnCompany) {
  const uint32_t seed = testing::Seed();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  const bool short_of_pages = round() % 2 == 1;
  const int32_t budgets[] = {1, 7, 64, 128, 200, 512};
  const int32_t budget = budgets[random() % std::size(budgets)];
  Bench bench(
      Info(short_of_pages ? 60 : 4000, depth()),
      {.max_batch_tokens = budget, .max_running_requests = 16, .max_context_tokens = kContext});
  std::vector<Case> cases;
  for (int32_t tag = 0; tag < 20; ++tag) {
    cases.push_back(RandomCase(&random, tag, budget == 1 ? 60 : 300));
  }
  for (const Case& c : cases) {
    ASSERT_TRUE(bench.Add(c).ok());
    for (int steps = random() % 4; steps > 0; --steps) bench.Step();
  }
  bench.RunToEnd();
  for (const Case& c : cases) {
    ASSERT_TRUE(c.sink->result.has_value()) << c.request.id << " " << c.sink->status;
    EXPECT_EQ(c.sink->output, c.expected) << c.request.id;
    const GenerationStats& stats = c.sink->result->stats;
    const auto prompt = static_cast<int64_t>(c.request.prompt->size());
    EXPECT_EQ(stats.completion_tokens, static_cast<int32_t>(c.expected.size()));
    EXPECT_EQ(stats.attended_keys,
              AttendedKeys(c.request.recipe, prompt, 0,
                           prompt + static_cast<int64_t>(c.expected.size()) - 1));
  }
}

INSTANTIATE_TEST_SUITE_P(Rounds, SchedulerProperty,
                         ::testing::Combine(::testing::Range(0, 16), ::testing::Values(1, 2, 3)));

int64_t Blocks(int64_t positions) { return (positions + 63) / 64; }

// After every step each request holds exactly the pages that its recipe can see.
TEST_P(SchedulerTest, HoldsExactlyWhatTheRecipesSee) {
  const uint32_t seed = testing::Seed();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  Bench bench(
      Info(4000, depth()),
      {.max_batch_tokens = 256, .max_running_requests = 16, .max_context_tokens = kContext});
  std::vector<Case> cases;
  for (int32_t tag = 0; tag < 16; ++tag) cases.push_back(RandomCase(&random, tag, 700));
  for (const Case& c : cases) ASSERT_TRUE(bench.Add(c).ok());
  while (!bench.done()) {
    bench.Step();
    const EngineLoad load = bench.scheduler.Load();
    int64_t used = 0;
    for (const auto& [slot, state] : bench.device.slots()) {
      const Case& c = cases[state.first_token];
      if (c.sink->ended) continue;
      // What the computed positions keep, and room for all that are submitted.
      const int64_t pages = PagesHeld(c.request.recipe, state.computed) +
                            (Blocks(state.submitted) - Blocks(state.computed)) * kLayers;
      used += pages;
      EXPECT_EQ(load.recipes.at(c.request.recipe_label).kv_bytes, pages * 100)
          << c.request.id << " after " << state.computed;
    }
    EXPECT_EQ(load.used_pages, used);
  }
  bench.ExpectNothingHeld();
}

TEST_P(SchedulerTest, APrefillingWindowHoldsLittleHoweverLongThePrompt) {
  Bench bench(Info(4000, depth()),
              {.max_batch_tokens = 128, .max_running_requests = 1, .max_context_tokens = kContext});
  std::mt19937 random(2);
  Case c;
  c.request.id = "long";
  c.request.prompt = testing::Shared(RandomTokens(&random, 2000));
  c.request.recipe.window = 100;
  c.request.recipe.sinks = 10;
  c.request.recipe.layer_full = c.request.recipe.decode_full = std::vector<bool>(kLayers);
  c.request.stopping = {.max_tokens = 5, .ignore_eos = true};
  c.expected = testing::ReferenceOutput(*c.request.prompt, {}, c.request.recipe, 5, true);
  ASSERT_TRUE(bench.Add(c).ok());
  bench.RunToEnd();
  EXPECT_EQ(c.sink->output, c.expected);
  // ceil(10/64) + ceil((100 + 128 a step in flight)/64) + 1 pages a layer of 100 bytes.
  EXPECT_LE(c.sink->result->stats.peak_kv_bytes, (1 + 2 + 2 * depth() + 1) * kLayers * 100);
  EXPECT_EQ(c.sink->result->stats.full_attention_kv_bytes, 32 * kLayers * 100);
}

// Random submissions, cancels, aborts and deadlines: every request ends once, and the pool is
// whole.
TEST_P(SchedulerTest, NothingIsLostOrLeftBehind) {
  const uint32_t seed = testing::Seed();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  Bench bench(Info(120, depth(), 6),
              {.max_batch_tokens = 200, .max_running_requests = 6, .max_context_tokens = kContext});
  std::vector<Case> cases;
  for (int32_t tag = 0; tag < 150; ++tag) {
    Case c = RandomCase(&random, tag, 250);
    if (random() % 8 == 0) c.request.deadline = SteadyTime::min();
    ASSERT_TRUE(bench.Add(c).ok());
    cases.push_back(c);
    for (int steps = random() % 5; steps > 0; --steps) bench.Step();
    const size_t victim_index = random() % cases.size();
    const std::string victim = "r" + std::to_string(victim_index);
    switch (random() % 4) {
      case 0:
        bench.scheduler.Cancel(victim, cases[victim_index].sink.get(),
                               absl::CancelledError("gone"));
        break;
      case 1:
        bench.scheduler.Abort(victim);
        break;
      default:
        bench.scheduler.ExpireDeadlines(SteadyClock::now());
    }
  }
  bench.RunToEnd();
  size_t whole = 0;
  for (const Case& c : cases) {
    ASSERT_TRUE(c.sink->ended) << c.request.id;
    const bool complete =
        c.sink->result.has_value() && c.sink->result->reason != FinishReason::kCancelled;
    if (complete) {
      EXPECT_EQ(c.sink->output, c.expected) << c.request.id;
      ++whole;
    } else {
      ASSERT_LE(c.sink->output.size(), c.expected.size());
      EXPECT_TRUE(std::equal(c.sink->output.begin(), c.sink->output.end(), c.expected.begin()));
    }
  }
  EXPECT_GT(whole, 20u);
  EXPECT_EQ(bench.scheduler.TakeEnded(), static_cast<int64_t>(cases.size()));
}

TEST_P(SchedulerTest, AFailedStepFailsItsRequestsAndFreesThem) {
  Bench bench(Info(400, depth()),
              {.max_batch_tokens = 200, .max_running_requests = 6, .max_context_tokens = kContext});
  std::mt19937 random(3);
  Case c = RandomCase(&random, 0, 100);
  ASSERT_TRUE(bench.Add(c).ok());
  bench.device.FailWith(absl::InternalError("the device is gone"));
  bench.Step();
  EXPECT_EQ(c.sink->status.code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(bench.scheduler.idle());
  bench.RunToEnd();
  bench.ExpectNothingHeld();
}

TEST_P(SchedulerTest, ScoresPromptAndForcedTokens) {
  Bench bench(Info(400, depth()),
              {.max_batch_tokens = 50, .max_running_requests = 6, .max_context_tokens = kContext});
  std::mt19937 random(4);
  Case c;
  c.request.id = "scored";
  c.request.prompt = testing::Shared(RandomTokens(&random, 130));
  c.request.forced_output = RandomTokens(&random, 70);
  c.request.recipe = testing::RandomRecipe(&random, kLayers);
  c.request.recipe.window = 40;
  c.request.recipe.decode_full = {true, false, true};
  c.request.stopping = {.max_tokens = 70};
  c.request.prompt_logprobs = 0;
  c.request.output_logprobs = 0;
  ASSERT_TRUE(bench.Add(c).ok());
  bench.RunToEnd();
  std::vector<int32_t> tokens = *c.request.prompt;
  tokens.insert(tokens.end(), c.request.forced_output.begin(), c.request.forced_output.end());
  const std::vector<uint64_t> values = testing::ReferenceValues(tokens, 130, c.request.recipe);
  ASSERT_EQ(c.sink->prompt_logprobs.size(), 130u);
  for (int32_t p = 0; p < 130; ++p) {
    EXPECT_EQ(c.sink->prompt_logprobs[p].token, tokens[p]);
    if (p == 0) continue;
    EXPECT_EQ(c.sink->prompt_logprobs[p].logprob, testing::FakeLogprob(values[p - 1], tokens[p]));
  }
  EXPECT_EQ(c.sink->output, c.request.forced_output);
  for (int32_t t = 0; t < 70; ++t) {
    EXPECT_TRUE(c.sink->events[t].has_logprob);
    EXPECT_EQ(c.sink->events[t].scored.logprob,
              testing::FakeLogprob(values[129 + t], tokens[130 + t]));
  }
  EXPECT_EQ(c.sink->result->reason, FinishReason::kLength);
}

TEST_P(SchedulerTest, APromptOfOneTokenHasItsEntry) {
  Bench bench(Info(400, depth()), {.max_batch_tokens = 50, .max_context_tokens = kContext});
  Case c;
  c.request.id = "one";
  c.request.prompt = testing::Shared({7});
  c.request.recipe.layer_full = c.request.recipe.decode_full = std::vector<bool>(kLayers);
  c.request.stopping = {.max_tokens = 1};
  c.request.prompt_logprobs = 0;
  ASSERT_TRUE(bench.Add(c).ok());
  bench.RunToEnd();
  ASSERT_EQ(c.sink->prompt_logprobs.size(), 1u);
  EXPECT_EQ(c.sink->prompt_logprobs[0].token, 7);
}

TEST(MaxOutputTokens, CutsToContextAndPool) {
  const SchedulerOptions options{.max_batch_tokens = 64, .max_context_tokens = kContext};
  GenerationRequest request;
  request.prompt = testing::Shared(std::vector<int32_t>(100));
  request.recipe.layer_full = request.recipe.decode_full = std::vector<bool>(kLayers);
  EXPECT_EQ(*MaxOutputTokens(request, options, Info(4000, 1)), kContext - 100);
  request.stopping.max_tokens = 50;
  EXPECT_EQ(*MaxOutputTokens(request, options, Info(4000, 1)), 50);
  // Ten pages a layer hold 640 positions, and the last token needs none.
  request.stopping.max_tokens.reset();
  EXPECT_EQ(*MaxOutputTokens(request, options, Info(10 * kLayers, 1)), 541);
  request.stopping.max_tokens = 542;
  const absl::Status never = MaxOutputTokens(request, options, Info(10 * kLayers, 1)).status();
  EXPECT_EQ(never.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(IsNeverFits(never));
  request.recipe.window = 64;
  EXPECT_EQ(*MaxOutputTokens(request, options, Info(10 * kLayers, 1)), 542);
  // Nor does the one that is drawn behind a prompt that fills the context.
  request.prompt = testing::Shared(std::vector<int32_t>(kContext));
  EXPECT_EQ(*MaxOutputTokens(request, options, Info(4000, 1)), 1);
  request.prompt = testing::Shared(std::vector<int32_t>(kContext + 1));
  EXPECT_EQ(MaxOutputTokens(request, options, Info(4000, 1)).status().code(),
            absl::StatusCode::kOutOfRange);
}

}  // namespace
}  // namespace swaa
