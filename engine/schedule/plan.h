// The plan of a step: which positions of which requests it computes, who is admitted, who is
// preempted. A pure function of a snapshot.

#ifndef SWAA_ENGINE_SCHEDULE_PLAN_H_
#define SWAA_ENGINE_SCHEDULE_PLAN_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/schedule/rank.h"

namespace swaa {

// What planning needs to know of a request.
struct RequestView {
  Rank rank;                  // unique
  int32_t prompt_tokens = 0;  // P
  int32_t submitted = 0;      // positions that are computed, or are in submitted steps
  // Positions to compute before the next token can be drawn; `submitted` where the last one is
  // under way: the request is about to end, and its pages and slot settle.
  int32_t target = 0;
  int64_t pages_held = 0;
  int64_t pages_freed = 0;  // of them, those that preempting it alone frees: nobody shares them
  int64_t peak_pages = 0;   // that suffice until `target` is computed
  // Of a running request: submitted steps read its pages, so that preempting it frees them only
  // when those are collected.
  bool in_flight = false;
  // Of a queued request: false while a submitted step has a token of it (it was preempted), and
  // while it is looked up in the prefix cache.
  bool ready = true;
  // Of a queued request whose first `submitted` positions the prefix cache has: pages it would
  // share, and of them those that nobody holds, so that admitting it takes them from the free ones.
  int64_t cached_pages = 0;
  int64_t cached_free_pages = 0;
};

struct PlanInput {
  int32_t token_budget = 0;
  int32_t chunk_alignment = 128;  // chunk ends, but for the last and where it would leave none
  int32_t num_layers = 0;
  int64_t free_pages = 0;
  int64_t settling_pages = 0;  // free soon, whatever this plan does
  int32_t free_slots = 0;
  int32_t settling_slots = 0;
  bool shadows = false;  // nobody else is here, running or queued
  std::vector<RequestView> running;
};

// Who waits, by rank. Looking at one may cost a look-up in the prefix cache: the planner asks only
// for those it reaches.
class PlanQueue {
 public:
  virtual ~PlanQueue() = default;
  virtual size_t size() const = 0;
  virtual Rank RankOf(size_t index) const = 0;
  virtual RequestView View(size_t index) = 0;
};

// Positions first .. first + count - 1 of one request, all of one phase.
struct PlannedRows {
  bool queued = false;  // `request` is a place in the queue: it is admitted; else in running
  size_t request = 0;
  int32_t first = 0;
  int32_t count = 0;
};

struct StepPlan {
  std::vector<size_t> preempted;  // of running
  std::vector<size_t> admitted;   // of the queue
  std::vector<PlannedRows> rows;
};

// Requests go by rank: earlier arrivals first, priority counted as time (rank.h).
//   1. Decodes (one position to go, beyond the prompt), by rank.
//   2. Chunks of running requests, by rank, from what is left of the budget. A chunk never crosses
//      P; both sides of P may be in one plan. Queued requests of higher rank come before a chunk.
//   3. The other queued requests, strictly by rank, while a slot is free and the free pages, less
//      what the running ones may still need, hold the newcomer up to its target; none in a step
//      that preempts.
// Short of pages, a request of steps 1 and 2 preempts lower-ranked running ones, lowest first; if
// there is none, or what that frees is not known to suffice (shared pages), it waits for the next
// plan. A newcomer that lacks a slot or pages preempts running requests of lower rank, which only
// one of higher priority finds, if that can make room, and is admitted by a later plan. Nobody is
// preempted while what settles suffices: then the first that waits for it has what is free kept for
// it. The highest-ranked therefore always moves on, and nobody is overtaken by a lower rank.
//
// A shadow keeps what it has while others are computed, until one of them needs it. It decodes a
// position at a time, though it knows its output.
StepPlan PlanStep(const PlanInput& input, PlanQueue* queue);

}  // namespace swaa

#endif  // SWAA_ENGINE_SCHEDULE_PLAN_H_
