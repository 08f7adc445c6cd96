// The plan of a step: its order, its limits, and that it neither stalls nor spends what it has not.

#include "engine/schedule/plan.h"

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/testing/seed.h"

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
          .submitted = computed,
          .target = computed + 1,
          .pages_held = pages,
          .pages_freed = pages,
          .peak_pages = pages + kLayers};
}

RequestView Prompt(uint64_t arrival, int32_t tokens, int32_t computed = 0, int32_t priority = 0) {
  return {.priority = priority,
          .arrival = arrival,
          .prompt_tokens = tokens,
          .submitted = computed,
          .target = tokens,
          .pages_held = (computed + 63) / 64 * kLayers,
          .pages_freed = (computed + 63) / 64 * kLayers,
          .peak_pages = (tokens + 63) / 64 * kLayers};
}

PlanInput Input(int32_t budget, int64_t free_pages) {
  return {
      .token_budget = budget, .num_layers = kLayers, .free_pages = free_pages, .free_slots = 100};
}

// A queue that notes who was looked at.
class ListedQueue final : public PlanQueue {
 public:
  explicit ListedQueue(std::vector<RequestView> requests) : requests_(std::move(requests)) {}
  size_t size() const override { return requests_.size(); }
  int32_t Priority(size_t index) const override { return requests_[index].priority; }
  RequestView View(size_t index) override {
    EXPECT_TRUE(viewed.insert(index).second) << index << " is looked at twice";
    return requests_[index];
  }

  std::set<size_t> viewed;

 private:
  std::vector<RequestView> requests_;
};

StepPlan Plan(const PlanInput& input, std::vector<RequestView> queued = {}) {
  ListedQueue queue(std::move(queued));
  return PlanStep(input, &queue);
}

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

bool RanksBelow(const RequestView& a, const RequestView& b) {
  return a.priority != b.priority ? a.priority < b.priority : a.arrival > b.arrival;
}

// A random state of affairs in which pages are short, shared, and on their way back.
struct RandomCase {
  explicit RandomCase(std::mt19937* random_in) : random(*random_in) {
    input = Input(1 + random() % 600, random() % 60);
    input.free_slots = random() % 4;
    input.settling_pages = random() % 3 == 0 ? random() % 30 : 0;
    input.settling_slots = random() % 2;
    uint64_t arrival = 0;
    for (int i = random() % 8; i > 0; --i) {
      const auto computed = static_cast<int32_t>(1 + random() % 300);
      RequestView view = random() % 2 == 0 ? Decoding(arrival++, computed, random() % 3)
                                           : Prompt(arrival++, computed + 1 + random() % 300,
                                                    computed, random() % 3);
      if (random() % 8 == 0) view.target = view.submitted;
      if (random() % 4 == 0) view.pages_freed = random() % (view.pages_held + 1);
      view.in_flight = random() % 3 == 0;
      input.running.push_back(view);
    }
    for (int i = random() % 4; i > 0; --i) {
      queued.push_back(Prompt(arrival++, 1 + random() % 400, 0, random() % 4));
    }
    std::sort(queued.begin(), queued.end(),
              [](const RequestView& a, const RequestView& b) { return RanksBelow(b, a); });
  }

  std::mt19937& random;
  PlanInput input;
  std::vector<RequestView> queued;
};

// Who is preempted ranks below everybody else that holds pages, and below whom it is for.
void ExpectLowestPreempted(const RandomCase& c, const StepPlan& plan) {
  const std::set<size_t> victims(plan.preempted.begin(), plan.preempted.end());
  ASSERT_EQ(victims.size(), plan.preempted.size());
  for (const size_t victim : victims) {
    const RequestView& preempted = c.input.running[victim];
    bool for_someone = std::any_of(c.queued.begin(), c.queued.end(), [&](const RequestView& one) {
      return one.priority > preempted.priority;
    });
    for (size_t i = 0; i < c.input.running.size(); ++i) {
      const RequestView& other = c.input.running[i];
      if (victims.contains(i)) continue;
      if (!RanksBelow(preempted, other)) {
        // It may have been passed over because it holds nothing or is about to end.
        ASSERT_TRUE(other.pages_held == 0 || other.target == other.submitted);
      }
      for_someone |= RanksBelow(preempted, other) && other.target > other.submitted;
    }
    ASSERT_TRUE(for_someone);
  }
}

// The highest-ranked that has something to compute does, unless no page is to be had for it.
void ExpectHighestMoves(const RandomCase& c, const StepPlan& plan) {
  const RequestView* highest = nullptr;
  size_t index = 0;
  int64_t now = c.input.free_pages;
  int64_t soon = c.input.settling_pages;
  bool all_decode = true;
  for (size_t i = 0; i < c.input.running.size(); ++i) {
    const RequestView& one = c.input.running[i];
    if (one.target == one.submitted) continue;
    all_decode &= one.submitted >= one.prompt_tokens && one.target - one.submitted == 1;
    if (highest == nullptr || RanksBelow(*highest, one)) {
      highest = &one;
      index = i;
    }
  }
  if (highest == nullptr) return;
  for (const RequestView& one : c.input.running) {
    const bool ends = one.target == one.submitted;
    if (ends || RanksBelow(one, *highest)) (one.in_flight || ends ? soon : now) += one.pages_freed;
  }
  const bool moves = std::any_of(plan.rows.begin(), plan.rows.end(), [&](const PlannedRows& rows) {
    return !rows.queued && rows.request == index;
  });
  const bool needs_page = highest->submitted % 64 == 0;
  if (!c.queued.empty() && c.queued[0].priority > highest->priority) return;  // not the highest
  // Decodes come first and may use up the budget or wait for pages.
  if (!all_decode || (needs_page && (now < kLayers || soon > 0))) return;
  ASSERT_TRUE(moves);
}

TEST(PlanStep, NeverOverspendsAndAlwaysMoves) {
  const uint32_t seed = testing::Seed();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  int preemptions = 0;
  for (int round = 0; round < 3000; ++round) {
    const RandomCase c(&random);
    const PlanInput& input = c.input;
    const StepPlan plan = Plan(input, c.queued);
    preemptions += !plan.preempted.empty();
    int64_t pages = input.free_pages;
    int64_t tokens = 0;
    for (size_t victim : plan.preempted) {
      if (!input.running[victim].in_flight) pages += input.running[victim].pages_freed;
    }
    std::map<std::pair<bool, size_t>, int32_t> at;
    for (const PlannedRows& rows : plan.rows) {
      const RequestView& request =
          rows.queued ? c.queued[rows.request] : input.running[rows.request];
      auto [it, first] = at.try_emplace({rows.queued, rows.request}, request.submitted);
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
    if (!plan.preempted.empty()) {
      ASSERT_THAT(plan.admitted, IsEmpty());
    }
    ASSERT_NO_FATAL_FAILURE(ExpectLowestPreempted(c, plan));
    ASSERT_NO_FATAL_FAILURE(ExpectHighestMoves(c, plan));
    if (input.running.empty() && !c.queued.empty() && input.free_slots > 0 &&
        input.free_pages >= kLayers) {
      ASSERT_FALSE(plan.rows.empty());
    }
  }
  EXPECT_GT(preemptions, 100);
}

}  // namespace
}  // namespace swaa
