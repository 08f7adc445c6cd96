// Random plans: they spend no page or token that is not there, preempt only the lowest, and move.

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/schedule/plan_views.h"
#include "tests/unit/testing/seed.h"

namespace swaa {
namespace {

using ::testing::IsEmpty;

bool RanksBelow(const RequestView& a, const RequestView& b) { return a.rank > b.rank; }

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
      return RanksBelow(preempted, one);
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
  if (!c.queued.empty() && RanksBelow(*highest, c.queued[0])) return;  // not the highest
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
