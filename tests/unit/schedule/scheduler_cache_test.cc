// The scheduler and its prefix cache on a hashing device: what others have computed changes no
// token.

#include <random>

#include <gtest/gtest.h>

#include "engine/recipe/visibility.h"
#include "tests/unit/schedule/scheduler_bench.h"
#include "tests/unit/testing/random_recipe.h"
#include "tests/unit/testing/seed.h"

namespace swaa {
namespace {

// Round, and steps in flight.
class SchedulerCacheProperty : public ::testing::TestWithParam<std::tuple<int, int>> {
 protected:
  int round() const { return std::get<0>(GetParam()); }
  int depth() const { return std::get<1>(GetParam()); }
};
INSTANTIATE_TEST_SUITE_P(Rounds, SchedulerCacheProperty,
                         ::testing::Combine(::testing::Range(0, 16), ::testing::Values(1, 2, 3)));

// By steps in flight.
class SchedulerCache : public ::testing::TestWithParam<int> {
 protected:
  int depth() const { return GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(Depths, SchedulerCache, ::testing::Values(1, 2, 3));

// Conversations over a few common prefixes, one after the other and at once: whatever recipe filled
// the cache, and whatever was evicted since, a request's tokens are those it gives alone.
TEST_P(SchedulerCacheProperty, TokensDoNotDependOnTheCache) {
  const uint32_t seed = testing::Seed();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  const bool short_of_pages = round() % 2 == 1;
  Bench bench(Info(short_of_pages ? 60 : 4000, depth()), {.max_batch_tokens = 128,
                                                          .max_running_requests = 4,
                                                          .max_context_tokens = kContext,
                                                          .lookup_blocks = 1 + round() / 2 % 3});
  bench.looks_ahead = round() / 6 % 2 == 1;
  std::vector<std::vector<int32_t>> documents;
  for (int i = 0; i < 3; ++i) documents.push_back(RandomTokens(&random, 300));
  std::vector<Recipe> recipes;
  for (int i = 0; i < 4; ++i) recipes.push_back(testing::RandomRecipe(&random, kLayers));
  std::vector<Case> cases;
  int64_t cached = 0;
  for (int32_t i = 0; i < 40; ++i) {
    Case c;
    c.request.id = std::to_string(i);
    std::vector<int32_t> prompt;
    // A prefix of a document, or what an earlier conversation came to, and something new.
    if (!cases.empty() && random() % 3 == 0 && cases.back().sink->ended) {
      prompt = *cases.back().request.prompt;
      prompt.insert(prompt.end(), cases.back().sink->output.begin(),
                    cases.back().sink->output.end());
    } else {
      const std::vector<int32_t>& document = documents[random() % documents.size()];
      prompt.assign(document.begin(), document.begin() + 60 + random() % 240);
    }
    const std::vector<int32_t> own = RandomTokens(&random, 1 + random() % 20);
    prompt.insert(prompt.end(), own.begin(), own.end());
    if (prompt.size() > 600) prompt.resize(600);
    c.request.prompt = testing::Shared(std::move(prompt));
    c.request.recipe = recipes[random() % recipes.size()];
    c.request.cache_salt = random() % 8 == 0 ? "apart" : "";
    const uint32_t length = 1 + random() % 70;
    c.request.stopping = {.max_tokens = length, .ignore_eos = true};
    if (random() % 6 == 0) c.request.prompt_logprobs = 0;
    c.expected = testing::ReferenceOutput(*c.request.prompt, {}, c.request.recipe,
                                          static_cast<int32_t>(length), true);
    ASSERT_TRUE(bench.Add(c).ok());
    cases.push_back(c);
    for (int steps = random() % 90; steps > 0; --steps) bench.Step();
  }
  bench.RunToEnd();
  for (const Case& c : cases) {
    ASSERT_TRUE(c.sink->result.has_value()) << c.request.id << " " << c.sink->status;
    EXPECT_EQ(c.sink->output, c.expected) << c.request.id;
    const GenerationStats& stats = c.sink->result->stats;
    cached += stats.cached_prompt_tokens;
    EXPECT_LT(stats.cached_prompt_tokens, stats.prompt_tokens);
    EXPECT_EQ(stats.cached_prompt_tokens % 64, 0);
    if (c.request.prompt_logprobs.has_value()) {
      EXPECT_EQ(stats.cached_prompt_tokens, 0);
      EXPECT_EQ(c.sink->prompt_logprobs.size(), c.request.prompt->size());
    }
    const auto prompt = static_cast<int64_t>(c.request.prompt->size());
    EXPECT_EQ(stats.attended_keys,
              AttendedKeys(c.request.recipe, prompt, stats.cached_prompt_tokens,
                           prompt + static_cast<int64_t>(c.expected.size()) - 1));
  }
  if (!short_of_pages) {
    EXPECT_GT(cached, 0);
  }
}

TEST_P(SchedulerCache, AllRecipesShareTheFirstWindowAndSinks) {
  Bench bench(Info(4000, depth()),
              {.max_batch_tokens = 512, .max_running_requests = 4, .max_context_tokens = kContext});
  std::mt19937 random(5);
  const std::vector<int32_t> prompt = RandomTokens(&random, 1024);
  auto cached = [&](std::optional<uint32_t> window, uint32_t sinks, std::string salt = "") {
    Case c;
    c.request.id = std::to_string(random());
    c.request.prompt = testing::Shared(prompt);
    c.request.cache_salt = std::move(salt);
    c.request.recipe.window = window;
    c.request.recipe.sinks = sinks;
    c.request.recipe.layer_full = c.request.recipe.decode_full = std::vector<bool>(kLayers);
    c.request.stopping = {.max_tokens = 1};
    EXPECT_TRUE(bench.Add(c).ok());
    bench.RunToEnd();
    return c.sink->result->stats.cached_prompt_tokens;
  };
  EXPECT_EQ(cached(std::nullopt, 0), 0);
  EXPECT_EQ(cached(std::nullopt, 0),
            960);  // 15 of 16 whole blocks: one position is always computed
  EXPECT_EQ(cached(std::nullopt, 0, "another"), 0);
  EXPECT_EQ(cached(300, 100), 384);  // the six blocks below W + K
  EXPECT_EQ(cached(300, 100), 960);  // now its own ones too
  EXPECT_EQ(cached(301, 100), 384);  // another window shares no more than that
  EXPECT_EQ(cached(5000, 0), 960);   // a window beyond the prompt is full attention
}

// While another request decodes, a long prefix is looked up over several steps, or beside them; it
// is found all the same.
TEST_P(SchedulerCache, ALongLookUpHoldsNoStepUp) {
  std::mt19937 random(6);
  const std::vector<int32_t> prompt = RandomTokens(&random, 1024);
  for (const bool looks_ahead : {false, true}) {
    Bench bench(Info(4000, depth()), {.max_batch_tokens = 512,
                                      .max_running_requests = 4,
                                      .max_context_tokens = kContext,
                                      .lookup_blocks = 2});
    bench.looks_ahead = looks_ahead;
    auto add = [&](std::vector<int32_t> tokens, uint32_t output) {
      Case c;
      c.request.id = std::to_string(random());
      c.request.prompt = testing::Shared(std::move(tokens));
      c.request.recipe = FullAttention();
      c.request.stopping = {.max_tokens = output, .ignore_eos = true};
      EXPECT_TRUE(bench.Add(c).ok());
      return c.sink;
    };
    add(prompt, 1);
    bench.RunToEnd();
    const auto other = add(RandomTokens(&random, 10), 200);
    while (other->output.empty()) bench.Step();
    const auto cached = add(prompt, 1);
    const size_t before = other->output.size();
    while (!cached->accepted) bench.Step();
    // 15 blocks, two a step; or all of them after the first.
    EXPECT_NEAR(static_cast<double>(other->output.size() - before), looks_ahead ? 2 : 8, 1);
    while (!cached->ended) bench.Step();
    EXPECT_EQ(cached->result->stats.cached_prompt_tokens, 960);
    bench.RunToEnd();
  }
}

}  // namespace
}  // namespace swaa
