// The plan of a step: which positions of which requests it computes, who is admitted, who is
// preempted. A pure function of a snapshot.

#ifndef SWAA_ENGINE_SCHEDULE_PLAN_H_
#define SWAA_ENGINE_SCHEDULE_PLAN_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace swaa {

// What planning needs to know of a request.
struct RequestView {
  int32_t priority = 0;
  uint64_t arrival = 0;       // smaller is earlier; unique
  int32_t prompt_tokens = 0;  // P
  int32_t computed = 0;       // positions whose keys and values are in pages
  int32_t target = 0;         // positions to compute before the next token can be drawn; > computed
  int64_t pages_held = 0;
  int64_t pages_freed = 0;  // of them, those that preempting it alone frees: nobody shares them
  int64_t peak_pages = 0;   // that suffice until `target` is computed, in chunks of the budget
  // Of a queued request whose first `computed` positions the prefix cache has: pages it would
  // share, and of them those that no request holds, so that admitting it takes them from the free
  // ones.
  int64_t cached_pages = 0;
  int64_t cached_free_pages = 0;
};

struct PlanInput {
  int32_t token_budget = 0;
  int32_t chunk_alignment = 128;  // chunk ends, but for the last and where it would leave none
  int32_t num_layers = 0;
  int64_t free_pages = 0;
  int32_t free_slots = 0;
  std::vector<RequestView> running;
  std::vector<RequestView> queued;
};

// Positions first .. first + count - 1 of one request, all of one phase.
struct PlannedRows {
  bool queued = false;  // `request` indexes PlanInput::queued: it is admitted; else running
  size_t request = 0;
  int32_t first = 0;
  int32_t count = 0;
};

struct StepPlan {
  std::vector<size_t> preempted;  // of running
  std::vector<size_t> admitted;   // of queued
  std::vector<PlannedRows> rows;
};

// Requests rank by priority, then arrival.
//   1. Decodes (one position to go, beyond the prompt), by rank.
//   2. Chunks of running requests, by rank, from what is left of the budget. A chunk never crosses
//      P; both sides of P may be in one plan.
//   3. Queued requests, strictly by rank, while a slot is free and the free pages, less what the
//      running ones may still need, hold the newcomer up to its target; none in a step that
//      preempts.
// Short of pages, a request of steps 1 and 2 preempts lower-ranked running ones, lowest first; if
// there is none, or what that frees is not known to suffice (shared pages), it waits for the next
// plan. The highest-ranked therefore always moves on, and nobody is overtaken by a lower rank.
StepPlan PlanStep(const PlanInput& input);

}  // namespace swaa

#endif  // SWAA_ENGINE_SCHEDULE_PLAN_H_
