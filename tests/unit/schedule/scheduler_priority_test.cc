// Priority: who has more of it is served earlier, and nobody waits for ever behind those who have.

#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/schedule/scheduler_bench.h"
#include "tests/unit/testing/seed.h"

namespace swaa {
namespace {

constexpr std::chrono::seconds kAging{10};

// A case that decodes for `tokens` steps or so.
Case MakeCase(std::mt19937* random, int32_t tag, int32_t priority, uint32_t tokens) {
  Case c;
  c.request.id = "r" + std::to_string(tag);
  c.request.prompt = testing::Shared(RandomTokens(random, 1 + (*random)() % 100));
  c.request.recipe = FullAttention();
  c.request.priority = priority;
  c.request.stopping = {.max_tokens = tokens, .ignore_eos = true};
  return c;
}

// By steps in flight.
class SchedulerPriority : public ::testing::TestWithParam<int> {
 protected:
  Bench MakeBench(int32_t slots, int32_t pages, std::chrono::seconds aging = kAging) const {
    return Bench(Info(pages, GetParam()), {.max_batch_tokens = 128,
                                           .max_running_requests = slots,
                                           .max_context_tokens = kContext,
                                           .priority_aging = aging});
  }
};
INSTANTIATE_TEST_SUITE_P(Depths, SchedulerPriority, ::testing::Values(1, 2, 3));

// A step takes a second; in each comes a request of higher priority, more than the slots can serve.
TEST_P(SchedulerPriority, AStreamOfHighOnesStarvesNobody) {
  const uint32_t seed = testing::Seed();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  constexpr int kPriority = 6;
  Bench bench = MakeBench(2, 400);
  const Case low = MakeCase(&random, 0, 0, 5);
  std::vector<Case> high;
  SteadyTime now;
  const auto step = [&] {
    high.push_back(MakeCase(&random, static_cast<int32_t>(high.size()) + 1, kPriority, 12));
    ASSERT_TRUE(bench.Add(high.back(), now).ok());
    bench.Step();
    now += std::chrono::seconds(1);
  };
  for (int i = 0; i < 5; ++i) step();
  const SteadyTime arrival = now;
  ASSERT_TRUE(bench.Add(low, now).ok());
  while (!low.sink->ended) {
    ASSERT_LT(now - arrival, std::chrono::minutes(20)) << "it starves";
    step();
  }
  // It let pass what came before its priority was made up for, and nothing later.
  const auto place = static_cast<size_t>(5 + kPriority * kAging.count());
  for (size_t i = 0; i < high.size(); ++i) {
    if (i + 1 < place) {
      EXPECT_TRUE(high[i].sink->ended) << i;
    } else if (i > place) {
      EXPECT_FALSE(high[i].sink->accepted) << i;
    }
  }
  bench.RunToEnd();
}

TEST_P(SchedulerPriority, WithoutAgeIsNoPriority) {
  std::mt19937 random(1);
  Bench bench = MakeBench(1, 400, std::chrono::seconds(0));
  const std::vector<Case> cases = {MakeCase(&random, 0, 0, 5), MakeCase(&random, 1, 0, 5),
                                   MakeCase(&random, 2, 100, 5)};
  for (const Case& c : cases) ASSERT_TRUE(bench.Add(c).ok());
  while (!cases[1].sink->ended) {
    ASSERT_FALSE(cases[2].sink->accepted);
    bench.Step();
  }
  bench.RunToEnd();
}

// Whatever comes, whenever, however short pages are: who is accepted ranks before all who wait.
TEST_P(SchedulerPriority, NobodyIsOvertakenByALowerRank) {
  const uint32_t seed = testing::Seed();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  Bench bench = MakeBench(4, 24);
  std::vector<Case> cases;
  std::vector<Rank> ranks;
  size_t overtaken = 0;
  SteadyTime now;
  for (int32_t tag = 0; tag < 300 || !bench.done(); ++tag) {
    if (tag < 300 && random() % 3 == 0) {
      const auto priority = static_cast<int32_t>(random() % 9) - 4;
      const auto index = static_cast<int32_t>(cases.size());
      cases.push_back(MakeCase(&random, index, priority, 1 + random() % 60));
      ranks.push_back(Rank::Of(now, priority, kAging, cases.size()));
      ASSERT_TRUE(bench.Add(cases.back(), now).ok());
    }
    std::vector<bool> before;
    for (const Case& c : cases) before.push_back(c.sink->accepted);
    bench.Step();
    now += std::chrono::seconds(random() % 3);
    for (size_t i = 0; i < cases.size(); ++i) {
      if (before[i] || !cases[i].sink->accepted) continue;
      for (size_t j = 0; j < cases.size(); ++j) {
        if (cases[j].sink->accepted) {
          overtaken += j > i && before[j];
          continue;
        }
        ASSERT_LT(ranks[i], ranks[j]) << cases[i].request.id << " before " << cases[j].request.id;
      }
    }
    ASSERT_LT(tag, 100000);
  }
  EXPECT_GT(overtaken, 5u) << "priority made no difference";
  bench.ExpectNothingHeld();
}

}  // namespace
}  // namespace swaa
