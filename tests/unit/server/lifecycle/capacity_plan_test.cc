// The plan against the real scheduler: as many requests as it says run to their ends and none loses
// its pages, whatever the recipe; and what it says of full attention is what is held.

#include "server/lifecycle/capacity_plan.h"

#include <algorithm>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "engine/schedule/never_fits.h"
#include "tests/unit/schedule/scheduler_bench.h"
#include "tests/unit/testing/random_recipe.h"
#include "tests/unit/testing/seed.h"

namespace swaa::server {
namespace {

Case CaseOf(std::mt19937* random, const std::string& id, const Recipe& recipe,
            const RequestShape& shape) {
  Case c;
  c.request.id = id;
  c.request.prompt = ::swaa::testing::Shared(RandomTokens(random, shape.prompt_tokens));
  c.request.recipe = recipe;
  c.request.stopping.max_tokens = static_cast<uint32_t>(shape.output_tokens);
  c.request.stopping.ignore_eos = true;
  return c;
}

// The most pages that one of them held.
int64_t RunAll(std::mt19937* random, int64_t requests, const Recipe& recipe,
               const RequestShape& shape, const DeviceInfo& device) {
  Bench bench(device, {.max_batch_tokens = device.max_step_tokens,
                       .max_running_requests = device.num_slots,
                       .max_context_tokens = kContext,
                       .prefix_cache = false});
  std::vector<Case> cases;
  for (int64_t i = 0; i < requests; ++i) {
    cases.push_back(CaseOf(random, std::to_string(i), recipe, shape));
    EXPECT_TRUE(bench.Add(cases.back()).ok());
  }
  bench.RunToEnd();
  EXPECT_EQ(bench.scheduler.Load().preemptions, 0);
  int64_t most = 0;
  for (const Case& c : cases) most = std::max(most, c.sink->result->stats.peak_kv_bytes);
  return most / device.page_bytes;
}

TEST(CapacityPlanTest, NoRequestLosesItsPages) {
  std::mt19937 random(::swaa::testing::Seed());
  int several = 0;
  for (int round = 0; round < 150; ++round) {
    DeviceInfo device = Info(static_cast<int32_t>(20 + random() % 400),
                             static_cast<int32_t>(1 + random() % 2), /*slots=*/8);
    device.max_step_tokens = 128;
    const Recipe recipe = ::swaa::testing::RandomRecipe(&random, kLayers);
    const RequestShape shape{.prompt_tokens = static_cast<int64_t>(1 + random() % 700),
                             .output_tokens = static_cast<int64_t>(1 + random() % 120)};
    SCOPED_TRACE(::testing::Message()
                 << "round " << round << ": " << device.num_pages - 1 << " pages, prompt "
                 << shape.prompt_tokens << ", output " << shape.output_tokens << ", window "
                 << recipe.window.value_or(0) << ", sinks " << recipe.sinks);
    const RecipeCapacity capacity = CapacityOf(recipe, shape, device, device.num_slots);
    if (capacity.at_once == 0) {
      Bench bench(device,
                  {.max_batch_tokens = device.max_step_tokens, .max_context_tokens = kContext});
      EXPECT_TRUE(IsNeverFits(bench.Add(CaseOf(&random, "x", recipe, shape))));
      continue;
    }
    several += capacity.at_once > 1 ? 1 : 0;
    const int64_t most = RunAll(&random, capacity.at_once, recipe, shape, device);
    EXPECT_LE(most, capacity.peak_pages);
    if (::testing::Test::HasFailure()) return;
  }
  EXPECT_GT(several, 20) << "the pools are too small to say anything";
}

TEST(CapacityPlanTest, FullAttentionHoldsWhatThePlanSays) {
  std::mt19937 random(1);
  const DeviceInfo device = Info(/*pages=*/300, /*depth=*/1);
  for (const RequestShape& shape :
       {RequestShape{64, 1}, RequestShape{64, 2}, RequestShape{700, 200}, RequestShape{1, 65}}) {
    const RecipeCapacity capacity = CapacityOf(FullAttention(), shape, device, 32);
    EXPECT_EQ(capacity.decode_pages, capacity.full_attention_pages);
    EXPECT_EQ(capacity.peak_pages, capacity.full_attention_pages);
    EXPECT_EQ(capacity.at_once, std::min<int64_t>(32, 300 / capacity.peak_pages));
    EXPECT_EQ(RunAll(&random, 1, FullAttention(), shape, device), capacity.peak_pages);
  }
}

TEST(CapacityPlanTest, ServersAreByThroughputAndByMemory) {
  const Measured measured{.requests_per_second = 2, .seconds_per_request = 4};
  const RecipeCapacity roomy{.at_once = 100};
  EXPECT_EQ(ServersFor(2, measured, roomy), 1);
  EXPECT_EQ(ServersFor(2.1, measured, roomy), 2);
  EXPECT_EQ(ServersFor(0.1, measured, roomy), 1);
  EXPECT_EQ(ServersFor(10, measured, roomy), 5);
  // 40 at a time, and a pool of four.
  EXPECT_EQ(ServersFor(10, measured, {.at_once = 4}), 10);
  EXPECT_EQ(ServersFor(10, measured, {.at_once = 0}), std::nullopt);
  EXPECT_EQ(ServersFor(10, {}, roomy), std::nullopt);
}

}  // namespace
}  // namespace swaa::server
