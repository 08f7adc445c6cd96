// The plan of a step, case by case: its order, its limits, who gives way and who waits.

#include "engine/schedule/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/schedule/plan_views.h"

namespace swaa {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(PlanStep, DecodesFirstThenChunksThenNewcomers) {
  PlanInput input = Input(512, 1000);
  input.running = {Prompt(0, 1000, 256), Decoding(1, 100), Decoding(2, 50)};
  const StepPlan plan = Plan(input, {Prompt(3, 1000)});
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
  const StepPlan plan = Plan(input, {request});
  ASSERT_EQ(plan.rows.size(), 2u);
  EXPECT_EQ(plan.rows[0].count, 100);
  EXPECT_EQ(plan.rows[1].first, 100);
  EXPECT_EQ(plan.rows[1].count, 50);
}

TEST(PlanStep, RunningOnesRankByPriorityThenArrival) {
  PlanInput input = Input(128, 1000);
  input.running = {Prompt(0, 64), Prompt(1, 64, 0, 5), Prompt(2, 64, 0, 5)};
  const StepPlan plan = Plan(input);
  ASSERT_EQ(plan.rows.size(), 2u);
  EXPECT_EQ(plan.rows[0].request, 1u);
  EXPECT_EQ(plan.rows[1].request, 2u);
}

TEST(PlanStep, ANewcomerIsNotOvertakenByASmallerOne) {
  PlanInput input = Input(512, 10);
  input.running = {Decoding(0, 10)};
  ListedQueue queue({Prompt(1, 1000), Prompt(2, 10)});
  EXPECT_THAT(PlanStep(input, &queue).admitted, IsEmpty());
  EXPECT_THAT(queue.viewed, ElementsAre(0)) << "the second one's turn cannot come";
}

TEST(PlanStep, NobodyIsLookedAtWithoutASlotOrBudget) {
  PlanInput input = Input(512, 1000);
  input.running = {Decoding(0, 10)};
  input.free_slots = 0;
  ListedQueue queue({Prompt(1, 10)});
  EXPECT_THAT(PlanStep(input, &queue).admitted, IsEmpty());
  input.free_slots = 1;
  input.token_budget = 1;
  EXPECT_THAT(PlanStep(input, &queue).admitted, IsEmpty());
  EXPECT_THAT(queue.viewed, IsEmpty());
}

TEST(PlanStep, ARequestWhoseLastTokenIsUnderWayHasNothingToCompute) {
  PlanInput input = Input(512, 1000);
  input.running = {Decoding(0, 70), Decoding(1, 70)};
  input.running[0].target = input.running[0].submitted;
  const StepPlan plan = Plan(input);
  ASSERT_EQ(plan.rows.size(), 1u);
  EXPECT_EQ(plan.rows[0].request, 1u);
}

TEST(PlanStep, WhoIsAboutToEndIsWaitedForAndNotPreempted) {
  PlanInput input = Input(512, 0);
  input.running = {Decoding(0, 64), Decoding(1, 70), Decoding(2, 70)};
  input.running[2].target = input.running[2].submitted;
  EXPECT_THAT(Plan(input).preempted, IsEmpty());
  // Nor for its slot.
  input.free_pages = 100;
  input.free_slots = 0;
  EXPECT_THAT(Plan(input, {Prompt(3, 10, 0, 1)}).preempted, IsEmpty());
  input.running[2].target = input.running[2].submitted + 1;
  EXPECT_THAT(Plan(input, {Prompt(3, 10, 0, 1)}).preempted, ElementsAre(2));
}

TEST(PlanStep, WhoWasPreemptedWithATokenUnderWayWaitsForItAndIsNotOvertaken) {
  RequestView request = Prompt(0, 10);
  request.ready = false;
  EXPECT_THAT(Plan(Input(512, 1000), {request, Prompt(1, 10)}).admitted, IsEmpty());
}

TEST(PlanStep, ShortOfPagesPreemptsTheLatestOfTheLowest) {
  PlanInput input = Input(512, 0);
  input.running = {Decoding(0, 64), Decoding(1, 70, 1), Decoding(2, 70), Decoding(3, 70, 2)};
  // By rank 3, 1, 0, 2; only 0 needs pages, and its victim's rows are in no plan.
  const StepPlan plan = Plan(input, {Prompt(4, 1)});
  EXPECT_THAT(plan.preempted, ElementsAre(2));
  EXPECT_THAT(plan.admitted, IsEmpty());
  std::vector<size_t> planned;
  for (const PlannedRows& rows : plan.rows) planned.push_back(rows.request);
  EXPECT_THAT(planned, ElementsAre(3, 1, 0));
}

TEST(PlanStep, WhatAVictimWouldComputeIsTakenOutOfThePlanAgain) {
  // The decode of the lower rank is planned first; then the chunk of the higher needs its pages.
  PlanInput input = Input(65, kLayers);
  input.running = {Prompt(0, 192, 64), Decoding(1, 128)};
  const StepPlan plan = Plan(input);
  EXPECT_THAT(plan.preempted, ElementsAre(1));
  ASSERT_EQ(plan.rows.size(), 1u);
  EXPECT_EQ(plan.rows[0].request, 0u);
  EXPECT_EQ(plan.rows[0].first, 64);
  EXPECT_GT(plan.rows[0].count, 0);
}

TEST(PlanStep, WaitsForPagesThatSettleInsteadOfPreempting) {
  PlanInput input = Input(512, 0);
  input.settling_pages = kLayers;
  input.running = {Decoding(0, 64), Decoding(1, 70), Decoding(2, 64)};
  const StepPlan plan = Plan(input);
  EXPECT_THAT(plan.preempted, IsEmpty());
  ASSERT_EQ(plan.rows.size(), 1u);
  EXPECT_EQ(plan.rows[0].request, 1u) << "which needs no page";
}

TEST(PlanStep, WhoWaitsForPagesThatSettleIsNotRobbedOfTheFreeOnes) {
  PlanInput input = Input(512, kLayers - 1);
  input.settling_pages = kLayers;
  input.running = {Decoding(0, 64), Decoding(1, 64)};
  EXPECT_THAT(Plan(input).rows, IsEmpty());
  input.free_pages = kLayers;
  EXPECT_EQ(Plan(input).rows.size(), 1u);
}

TEST(PlanStep, PreemptsOnlyOneThoughItsPagesAreStillRead) {
  PlanInput input = Input(512, 0);
  input.running = {Decoding(0, 64), Decoding(1, 70), Decoding(2, 70)};
  for (RequestView& request : input.running) request.in_flight = true;
  const StepPlan plan = Plan(input);
  EXPECT_THAT(plan.preempted, ElementsAre(2));
  ASSERT_EQ(plan.rows.size(), 1u);
  EXPECT_EQ(plan.rows[0].request, 1u);
}

TEST(PlanStep, ANewcomerPreemptsStrictlyLowerPrioritiesForASlot) {
  PlanInput input = Input(512, 100);
  input.free_slots = 0;
  input.running = {Decoding(0, 70, 1), Decoding(1, 70, 0), Decoding(2, 70, 0)};
  EXPECT_THAT(Plan(input, {Prompt(3, 10, 0, 1)}).preempted, ElementsAre(2));
  EXPECT_THAT(Plan(input, {Prompt(3, 10, 0, 0)}).preempted, IsEmpty()) << "a later arrival";
  input.settling_slots = 1;
  EXPECT_THAT(Plan(input, {Prompt(3, 10, 0, 1)}).preempted, IsEmpty()) << "a slot settles";
}

TEST(PlanStep, ANewcomerPreemptsNoMoreThanItNeedsAndNobodyInVain) {
  PlanInput input = Input(512, 0);
  input.running = {Decoding(0, 641, 1), Decoding(1, 630), Decoding(2, 630)};
  // 10 blocks of the lower ones: less one for each that stays, 8 of one's are the newcomer's.
  EXPECT_THAT(Plan(input, {Prompt(3, 8 * 64, 0, 1)}).preempted, ElementsAre(2));
  EXPECT_THAT(Plan(input, {Prompt(3, 12 * 64, 0, 1)}).preempted, ElementsAre(2, 1));
  EXPECT_THAT(Plan(input, {Prompt(3, 30 * 64, 0, 1)}).preempted, IsEmpty());
}

TEST(PlanStep, ANewcomerOfHigherPriorityComesBeforeAChunk) {
  PlanInput input = Input(256, 1000);
  input.running = {Prompt(0, 10000, 64)};
  const std::vector<RequestView> queue = {Prompt(1, 100, 0, 1), Prompt(2, 100, 0, 0)};
  const StepPlan plan = Plan(input, queue);
  EXPECT_THAT(plan.admitted, ElementsAre(0, 1));
  ASSERT_EQ(plan.rows.size(), 3u);
  EXPECT_TRUE(plan.rows[0].queued);
  EXPECT_FALSE(plan.rows[1].queued);
  EXPECT_TRUE(plan.rows[2].queued);
}

TEST(PlanStep, TheLowestWaitsForPagesInsteadOfPreemptingTheHigher) {
  PlanInput input = Input(512, 0);
  input.running = {Decoding(0, 70), Decoding(1, 64)};
  const StepPlan plan = Plan(input);
  EXPECT_THAT(plan.preempted, IsEmpty());
  ASSERT_EQ(plan.rows.size(), 1u);
  EXPECT_EQ(plan.rows[0].request, 0u);
}

TEST(PlanStep, WaitsWhereSharedPagesMayNotSuffice) {
  PlanInput input = Input(512, 0);
  input.running = {Decoding(0, 64), Decoding(1, 70)};
  input.running[1].pages_freed = 0;
  const StepPlan plan = Plan(input);
  EXPECT_THAT(plan.preempted, ElementsAre(1));
  EXPECT_TRUE(plan.rows.empty());
}

TEST(PlanStep, ACachedPrefixCostsOnlyThePagesThatNobodyHolds) {
  PlanInput input = Input(512, 2 * kLayers);
  input.running = {Decoding(0, 70)};
  RequestView request = Prompt(1, 320, 256);  // five blocks, four of them cached
  request.pages_held = 0;
  request.cached_pages = 4 * kLayers;
  EXPECT_THAT(Plan(input, {request}).admitted, ElementsAre(0));
  // If they must be taken from the free ones, there is no room beside the decoding request.
  request.cached_free_pages = 4 * kLayers;
  EXPECT_THAT(Plan(input, {request}).admitted, IsEmpty());
}

TEST(PlanStep, LeavesRunningRequestsThePagesTheyWillNeed) {
  PlanInput input = Input(128, 20);
  input.running = {Prompt(0, 448, 128)};                           // needs 15 more
  EXPECT_THAT(Plan(input, {Prompt(1, 192)}).admitted, IsEmpty());  // needs 9
}

}  // namespace
}  // namespace swaa
