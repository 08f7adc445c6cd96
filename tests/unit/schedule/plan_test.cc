// The plan of a step: its order, its limits, and that it neither stalls nor spends what it has not.

#include "engine/schedule/plan.h"

#include <algorithm>
#include <map>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace swaa {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr int32_t kLayers = 3;

RequestView Decoding(uint64_t arrival, int32_t computed, int32_t priority = 0) {
  const int64_t pages = (computed + 63) / 64 * kLayers;
  return {.priority = priority,
          .arrival = arrival,
          .prompt_tokens = std::min(computed, 10),
          .computed = computed,
          .target = computed + 1,
          .pages_held = pages,
          .pages_freed = pages,
          .peak_pages = pages + kLayers};
}

RequestView Prompt(uint64_t arrival, int32_t tokens, int32_t computed = 0, int32_t priority = 0) {
  return {.priority = priority,
          .arrival = arrival,
          .prompt_tokens = tokens,
          .computed = computed,
          .target = tokens,
          .pages_held = (computed + 63) / 64 * kLayers,
          .pages_freed = (computed + 63) / 64 * kLayers,
          .peak_pages = (tokens + 63) / 64 * kLayers};
}

PlanInput Input(int32_t budget, int64_t free_pages) {
  return {
      .token_budget = budget, .num_layers = kLayers, .free_pages = free_pages, .free_slots = 100};
}

TEST(PlanStep, DecodesFirstThenChunksThenNewcomers) {
  PlanInput input = Input(512, 1000);
  input.running = {Prompt(0, 1000, 256), Decoding(1, 100), Decoding(2, 50)};
  input.queued = {Prompt(3, 1000)};
  const StepPlan plan = PlanStep(input);
  ASSERT_EQ(plan.rows.size(), 4u);
  EXPECT_EQ(plan.rows[0].request, 1u);
  EXPECT_EQ(plan.rows[1].request, 2u);
  EXPECT_EQ(plan.rows[2].request, 0u);
  // 510 rows are left: 256 + 510 = 766, aligned down to 640.
  EXPECT_EQ(plan.rows[2].first, 256);
  EXPECT_EQ(plan.rows[2].count, 384);
  // 126 are left for the newcomer, less than one alignment: taken as they are.
  EXPECT_TRUE(plan.rows[3].queued);
  EXPECT_EQ(plan.rows[3].count, 126);
  EXPECT_THAT(plan.admitted, ElementsAre(0));
}

TEST(PlanStep, AChunkNeverCrossesThePromptsEnd) {
  PlanInput input = Input(512, 1000);
  RequestView request = Prompt(0, 100);
  request.target = 150;  // 50 forced tokens
  input.queued = {request};
  const StepPlan plan = PlanStep(input);
  ASSERT_EQ(plan.rows.size(), 2u);
  EXPECT_EQ(plan.rows[0].count, 100);
  EXPECT_EQ(plan.rows[1].first, 100);
  EXPECT_EQ(plan.rows[1].count, 50);
}

TEST(PlanStep, RanksByPriorityThenArrival) {
  PlanInput input = Input(64, 1000);
  input.queued = {Prompt(0, 64), Prompt(1, 64, 0, 5), Prompt(2, 64, 0, 5)};
  const StepPlan plan = PlanStep(input);
  EXPECT_THAT(plan.admitted, ElementsAre(1));
}

TEST(PlanStep, ANewcomerIsNotOvertakenByASmallerOne) {
  PlanInput input = Input(512, 10);
  input.running = {Decoding(0, 10)};
  input.queued = {Prompt(1, 1000), Prompt(2, 10)};
  EXPECT_THAT(PlanStep(input).admitted, IsEmpty());
}

TEST(PlanStep, ShortOfPagesPreemptsTheLatestOfTheLowest) {
  PlanInput input = Input(512, 0);
  input.running = {Decoding(0, 64), Decoding(1, 70, 1), Decoding(2, 70), Decoding(3, 70, 2)};
  input.queued = {Prompt(4, 1)};
  const StepPlan plan = PlanStep(input);
  EXPECT_THAT(plan.preempted, ElementsAre(2));
  EXPECT_THAT(plan.admitted, IsEmpty());
  EXPECT_EQ(plan.rows.size(), 3u);
}

TEST(PlanStep, TheLowestWaitsForPagesInsteadOfPreemptingTheHigher) {
  PlanInput input = Input(512, 0);
  input.running = {Decoding(0, 70), Decoding(1, 64)};
  const StepPlan plan = PlanStep(input);
  EXPECT_THAT(plan.preempted, IsEmpty());
  ASSERT_EQ(plan.rows.size(), 1u);
  EXPECT_EQ(plan.rows[0].request, 0u);
}

TEST(PlanStep, WaitsWhereSharedPagesMayNotSuffice) {
  PlanInput input = Input(512, 0);
  input.running = {Decoding(0, 64), Decoding(1, 70)};
  input.running[1].pages_freed = 0;
  const StepPlan plan = PlanStep(input);
  EXPECT_THAT(plan.preempted, ElementsAre(1));
  EXPECT_TRUE(plan.rows.empty());
}

TEST(PlanStep, ACachedPrefixCostsOnlyThePagesThatNobodyHolds) {
  PlanInput input = Input(512, 2 * kLayers);
  input.running = {Decoding(0, 70)};
  RequestView request = Prompt(1, 320, 256);  // five blocks, four of them cached
  request.pages_held = 0;
  request.cached_pages = 4 * kLayers;
  input.queued = {request};
  EXPECT_THAT(PlanStep(input).admitted, ElementsAre(0));
  // If they must be taken from the free ones, there is no room beside the decoding request.
  input.queued[0].cached_free_pages = 4 * kLayers;
  EXPECT_THAT(PlanStep(input).admitted, IsEmpty());
}

TEST(PlanStep, LeavesRunningRequestsThePagesTheyWillNeed) {
  PlanInput input = Input(128, 20);
  input.running = {Prompt(0, 448, 128)};  // needs 15 more
  input.queued = {Prompt(1, 192)};        // needs 9
  EXPECT_THAT(PlanStep(input).admitted, IsEmpty());
}

// Runs random plans to their end with an own account of pages.
TEST(PlanStep, NeverOverspendsAndAlwaysMoves) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 300; ++round) {
    PlanInput input = Input(1 + random() % 600, random() % 60);
    input.free_slots = random() % 4;
    uint64_t arrival = 0;
    for (int i = random() % 8; i > 0; --i) {
      const auto computed = static_cast<int32_t>(1 + random() % 300);
      RequestView view = random() % 2 == 0 ? Decoding(arrival++, computed, random() % 3)
                                           : Prompt(arrival++, computed + 1 + random() % 300,
                                                    computed, random() % 3);
      input.running.push_back(view);
    }
    for (int i = random() % 4; i > 0; --i) {
      input.queued.push_back(Prompt(arrival++, 1 + random() % 400, 0, random() % 3));
    }
    const StepPlan plan = PlanStep(input);
    int64_t pages = input.free_pages;
    int64_t tokens = 0;
    for (size_t victim : plan.preempted) pages += input.running[victim].pages_held;
    std::map<std::pair<bool, size_t>, int32_t> at;
    for (const PlannedRows& rows : plan.rows) {
      const RequestView& request = (rows.queued ? input.queued : input.running)[rows.request];
      auto [it, first] = at.try_emplace({rows.queued, rows.request}, request.computed);
      ASSERT_EQ(rows.first, it->second);
      ASSERT_GT(rows.count, 0);
      it->second += rows.count;
      ASSERT_LE(it->second, request.target);
      pages -= ((rows.first + rows.count + 63) / 64 - (rows.first + 63) / 64) * kLayers;
      tokens += rows.count;
      if (!rows.queued) {
        ASSERT_EQ(std::count(plan.preempted.begin(), plan.preempted.end(), rows.request), 0);
      }
    }
    ASSERT_GE(pages, 0);
    ASSERT_LE(tokens, input.token_budget);
    ASSERT_LE(static_cast<int32_t>(plan.admitted.size()), input.free_slots);
    if (!input.running.empty() && (input.free_pages >= 400 || input.running.size() == 1)) {
      const int64_t held = input.free_pages + input.running[0].pages_held;
      if (held >= input.running[0].peak_pages) {
        ASSERT_FALSE(plan.rows.empty());
      }
    }
    if (input.running.empty() && !input.queued.empty() && input.free_slots > 0 &&
        input.free_pages >= kLayers) {
      ASSERT_FALSE(plan.rows.empty());
    }
  }
}

}  // namespace
}  // namespace swaa
