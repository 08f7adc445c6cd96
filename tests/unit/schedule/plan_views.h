// Requests as the planner sees them, for the tests of plans.

#ifndef SWAA_TESTS_UNIT_SCHEDULE_PLAN_VIEWS_H_
#define SWAA_TESTS_UNIT_SCHEDULE_PLAN_VIEWS_H_

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "engine/schedule/plan.h"

namespace swaa {

inline constexpr int32_t kLayers = 3;

// Arrivals count seconds; an hour makes up for one priority.
inline Rank RankOf(uint64_t arrival, int32_t priority) {
  return Rank::Of(SteadyTime(std::chrono::seconds(arrival)), priority, std::chrono::hours(1),
                  arrival);
}

inline RequestView Decoding(uint64_t arrival, int32_t computed, int32_t priority = 0) {
  const int64_t pages = (computed + 63) / 64 * kLayers;
  return {.rank = RankOf(arrival, priority),
          .prompt_tokens = std::min(computed, 10),
          .submitted = computed,
          .target = computed + 1,
          .pages_held = pages,
          .pages_freed = pages,
          .peak_pages = pages + kLayers};
}

inline RequestView Prompt(uint64_t arrival, int32_t tokens, int32_t computed = 0,
                          int32_t priority = 0) {
  return {.rank = RankOf(arrival, priority),
          .prompt_tokens = tokens,
          .submitted = computed,
          .target = tokens,
          .pages_held = (computed + 63) / 64 * kLayers,
          .pages_freed = (computed + 63) / 64 * kLayers,
          .peak_pages = (tokens + 63) / 64 * kLayers};
}

inline PlanInput Input(int32_t budget, int64_t free_pages) {
  return {
      .token_budget = budget, .num_layers = kLayers, .free_pages = free_pages, .free_slots = 100};
}

// A queue that notes who was looked at.
class ListedQueue final : public PlanQueue {
 public:
  explicit ListedQueue(std::vector<RequestView> requests) : requests_(std::move(requests)) {}
  size_t size() const override { return requests_.size(); }
  Rank RankOf(size_t index) const override { return requests_[index].rank; }
  RequestView View(size_t index) override {
    EXPECT_TRUE(viewed.insert(index).second) << index << " is looked at twice";
    return requests_[index];
  }

  std::set<size_t> viewed;

 private:
  std::vector<RequestView> requests_;
};

inline StepPlan Plan(const PlanInput& input, std::vector<RequestView> queued = {}) {
  ListedQueue queue(std::move(queued));
  return PlanStep(input, &queue);
}

}  // namespace swaa

#endif  // SWAA_TESTS_UNIT_SCHEDULE_PLAN_VIEWS_H_
