// What to compute next: the scheduler's plan and how it is carried out.

#include <algorithm>
#include <limits>
#include <new>
#include <utility>

#include "base/check.h"
#include "engine/recipe/visibility.h"
#include "engine/schedule/scheduler.h"

namespace swaa {
namespace {

// Of LookAhead: about a millisecond, and more requests than a step usually admits.
constexpr int64_t kLookAheadBlocks = 2048;
constexpr size_t kLookAheadRequests = 64;

StepWork WorkOf(Phase phase, int64_t tokens, int64_t keys) {
  if (phase == Phase::kPrefill) return {.prefill_tokens = tokens, .prefill_keys = keys};
  return {.decode_tokens = tokens, .decode_keys = keys};
}

// Among the step's adapters, which are few; -1 for the base model.
int16_t PlaceOf(const AdapterHandle& adapter, Step* step) {
  if (adapter == nullptr) return -1;
  const auto found = std::find(step->adapters.begin(), step->adapters.end(), adapter->weights);
  const auto place = static_cast<int16_t>(found - step->adapters.begin());
  if (found == step->adapters.end()) step->adapters.push_back(adapter->weights);
  return place;
}

}  // namespace

// The queue as the planner sees it: looked up in the prefix cache where the planner gets to.
class Scheduler::Queue final : public PlanQueue {
 public:
  explicit Queue(Scheduler* scheduler) : scheduler_(scheduler) {}
  size_t size() const override { return scheduler_->queued_.size(); }
  Rank RankOf(size_t index) const override { return scheduler_->queued_[index]->rank; }
  RequestView View(size_t index) override {
    return scheduler_->ViewOfQueued(scheduler_->queued_[index].get());
  }

 private:
  Scheduler* const scheduler_;
};

RequestView Scheduler::ViewOf(RequestState* request) const {
  RequestView view{.rank = request->rank,
                   .prompt_tokens = request->prompt_tokens(),
                   .submitted = request->submitted,
                   .target = request->target(),
                   .pages_held = request->pages.held(),
                   .pages_freed = request->pages.Exclusive(pool_),
                   .in_flight = request->last_step > settled_,
                   .ready = request->rows_in_flight == 0};
  if (view.target - view.submitted > 1 || view.submitted < view.prompt_tokens) {
    if (request->planned_target != view.target) {
      request->planned_target = view.target;
      request->pages_to_target =
          PeakPages(request->request.recipe, view.target, MostSubmittedTokens(options_, device_));
    }
    view.peak_pages = request->pages_to_target;
  }
  return view;
}

bool Scheduler::WalkCache(RequestState* request, int64_t* blocks) {
  return cache_.Walk(request->prefix_key, request->known_tokens(), request->most_cached_tokens(),
                     &request->lookup, blocks);
}

void Scheduler::LookAhead() {
  if (!options_.prefix_cache) return;
  int64_t blocks = kLookAheadBlocks;
  const size_t requests = std::min(queued_.size(), kLookAheadRequests);
  for (size_t i = 0; i < requests && blocks > 0; ++i) {
    if (!UsesPrefixCache(*queued_[i])) continue;
    if (queued_[i]->rows_in_flight == 0) WalkCache(queued_[i].get(), &blocks);
  }
}

RequestView Scheduler::ViewOfQueued(RequestState* request) {
  bool walked = true;
  if (UsesPrefixCache(*request) && request->rows_in_flight == 0) {
    walked = WalkCache(request, &lookup_blocks_);
    if (walked) {
      cache_.Find(request->prefix_key, request->known_tokens(), request->request.recipe,
                  request->most_cached_tokens(), &request->lookup);
    }
  }
  RequestView view = ViewOf(request);
  view.ready &= walked;
  view.submitted = static_cast<int32_t>(request->lookup.tokens());
  view.cached_pages = request->lookup.pages();
  view.cached_free_pages = request->lookup.evictable_pages();
  return view;
}

StepPlan Scheduler::Plan() {
  PlanInput input;
  input.token_budget = std::min(options_.max_batch_tokens, device_.max_step_tokens);
  input.num_layers = device_.num_layers;
  // No step takes more new pages than this: with as many at hand nobody waits for those that are on
  // their way back.
  const int64_t most_taken =
      (input.token_budget / kernels::kPageTokens + 1 + static_cast<int64_t>(running_.size())) *
      device_.num_layers;
  if (pool_.available_pages() < most_taken) retired_.Release(most_taken - pool_.available_pages());
  input.free_pages = pool_.available_pages();
  input.settling_pages = retired_.pages();
  input.free_slots = static_cast<int32_t>(free_slots_.size());
  input.settling_slots = static_cast<int32_t>(settling_slots_.size());
  input.shadows = ShadowsMayRun();
  input.running.reserve(running_.size());
  for (const Request& request : running_) input.running.push_back(ViewOf(request.get()));
  Queue queue(this);
  return PlanStep(input, &queue);
}

std::optional<Step> Scheduler::NextStep(SteadyTime now) {
  SWAA_CHECK_LT(steps_in_flight(), device_.max_steps_in_flight);
  if (idle()) return std::nullopt;
  do {
    const std::optional<StepPlan> plan = PlanRows();
    if (!plan.has_value()) continue;
    if (plan->rows.empty()) break;
    std::optional<Step> step = TryCarryOut(*plan, now);
    if (step.has_value()) return step;
  } while (MakeRoom(now));
  if (!submitted_.empty() || idle()) return std::nullopt;
  // Only what cannot run at all stays behind while nothing runs: fail it, never stall in silence.
  SWAA_CHECK(running_.empty()) << running_.size() << " requests run and none moves";
  Fail(queued_.front(), cannot_be_admitted_, now);
  return std::nullopt;
}

// A plan whose rows are none only if there is none with any. No plan: memory was short.
std::optional<StepPlan> Scheduler::PlanRows() {
  // Nobody waits for a step that has nothing else to compute.
  const bool alone = submitted_.empty() && (running_.empty() || running_.front()->shadow());
  lookup_blocks_ = alone ? std::numeric_limits<int64_t>::max() : options_.lookup_blocks;
  try {
    StepPlan plan = Plan();
    while (plan.rows.empty()) {
      // What preempting frees was not known before, and a newcomer may wait for pages that are on
      // their way back: plan again.
      if (!plan.preempted.empty()) {
        Preempt(plan.preempted);
      } else if (retired_.Release(std::numeric_limits<int64_t>::max()) == 0 &&
                 !PreemptShadowInTheWay()) {
        break;
      }
      plan = Plan();
    }
    return plan;
  } catch (const std::bad_alloc&) {
    return std::nullopt;
  }
}

// For what memory was short for. Whether there is something left to plan.
bool Scheduler::MakeRoom(SteadyTime now) {
  if (!submitted_.empty()) return false;  // what they hold comes back
  Fail(queued_.empty() ? running_.back() : queued_.back(), out_of_memory_, now);
  return !idle();
}

// None: memory was short, and all is as if there had been no plan, but for those that it preempted.
std::optional<Step> Scheduler::TryCarryOut(const StepPlan& plan, SteadyTime now) {
  std::vector<Request> admitted;
  const uint64_t id = next_step_;
  try {
    Step step;
    CarryOut(plan, &admitted, &step, now);
    return step;
  } catch (const std::bad_alloc&) {
    if (next_step_ != id) TakeBack(admitted);
    return std::nullopt;
  }
}

// The step under construction: undoes AddRows, but for the pages, and Admit.
void Scheduler::TakeBack(const std::vector<Request>& admitted) {
  std::vector<SubmittedRows>& all = submitted_.back().rows;
  for (auto rows = all.rbegin(); rows != all.rend(); ++rows) {
    RequestState& request = *rows->request;
    request.submitted = rows->first;
    request.most_submitted = rows->most_submitted;
    request.draws_in_flight -= rows->uses.draws;
    --request.rows_in_flight;
    request.last_step = rows->last_step;
  }
  submitted_.pop_back();
  --next_step_;
  for (const Request& request : admitted) {
    if (request->slot >= 0) Requeue(request);
  }
}

void Scheduler::CarryOut(const StepPlan& plan, std::vector<Request>* admitted, Step* step,
                         SteadyTime now) {
  // Owners first: preemption and admission move requests between the lists.
  std::vector<Request> rows;
  rows.reserve(plan.rows.size());
  for (const PlannedRows& planned : plan.rows) {
    rows.push_back((planned.queued ? queued_ : running_)[planned.request]);
  }
  for (size_t index : plan.admitted) admitted->push_back(queued_[index]);
  Preempt(plan.preempted);

  SubmittedStep submitted{.id = next_step_};
  submitted.rows.reserve(rows.size());
  submitted_.push_back(std::move(submitted));
  step->id = next_step_++;
  for (const Request& request : *admitted) Admit(request, step, now);
  columns_.clear();
  for (size_t i = 0; i < rows.size(); ++i) AddRows(rows[i], plan.rows[i], step);
  classes_.Fill(columns_, step);
  if (step->adapters.empty()) step->sequence_adapters.clear();
  step->page_table_updates = std::exchange(updates_, {});
}

// A lone request of any size is admitted; beside a shadow it is not alone.
bool Scheduler::PreemptShadowInTheWay() {
  if (!submitted_.empty() || queued_.empty() || queued_.front()->shadow() || running_.empty() ||
      !running_.front()->shadow()) {
    return false;
  }
  Preempt({0});
  return true;
}

void Scheduler::Preempt(const std::vector<size_t>& running) {
  std::vector<Request> victims;
  victims.reserve(running.size());
  for (size_t index : running) victims.push_back(running_[index]);
  for (Request& victim : victims) {
    ++victim->preemptions;
    if (!victim->shadow()) ++preemptions_;
    Requeue(std::move(victim));
  }
}

// Of a request that runs: it is computed again.
void Scheduler::Requeue(Request request) {
  Vacate(request.get());
  request->computed = request->submitted = 0;
  ++request->life;
  request->CountRunning(-1);
  std::erase(running_, request);
  Enqueue(std::move(request));
}

void Scheduler::Admit(const Request& request, Step* step, SteadyTime now) {
  request->pages = SequencePages(device_.num_layers);
  retired_.Reserve(running_.size() + 1);
  request->slot = free_slots_.back();
  free_slots_.pop_back();
  std::erase(queued_, request);
  running_.insert(
      std::upper_bound(running_.begin(), running_.end(), request, &RequestState::RanksBefore),
      request);
  request->CountQueued(-1);
  request->CountRunning(1);
  if (UsesPrefixCache(*request)) {
    // Others that were admitted by the same plan may have taken hold of the same pages.
    const int64_t planned = request->lookup.tokens();
    cache_.Find(request->prefix_key, request->known_tokens(), request->request.recipe,
                request->most_cached_tokens(), &request->lookup);
    SWAA_CHECK_EQ(request->lookup.tokens(), planned) << "request " << request->request.id;
    request->computed = static_cast<int32_t>(planned);
    request->cursor = cache_.Adopt(&request->lookup, request->request.recipe, request->slot,
                                   &request->pages, &updates_);
  }
  request->submitted = request->computed;
  request->recipe = classes_.Add(request->request.recipe);
  UpdateLoad(request.get());
  step->setups.push_back(request->MakeSlotSetup());
  if (request->accepted) return;
  request->cached_tokens = request->computed;
  request->accepted = true;
  request->admitted_at = now;
  request->sink->OnAccepted();
}

void Scheduler::AddRows(const Request& request, const PlannedRows& planned, Step* step) {
  const int32_t first = planned.first;
  const int32_t end = first + planned.count;
  SWAA_CHECK_EQ(first, request->submitted) << "request " << request->request.id;
  const int64_t missing = request->pages.Missing(end) - pool_.available_pages();
  if (missing > 0) retired_.Release(missing);
  request->pages.Extend(end, request->slot, &pool_, &updates_);
  UpdateLoad(request.get());

  const auto first_row = static_cast<int32_t>(step->tokens.size());
  step->sequences.push_back({.slot = request->slot,
                             .first_row = first_row,
                             .query_count = planned.count,
                             .first_position = first});
  step->sequence_adapters.push_back(PlaceOf(request->request.adapter, step));
  for (int32_t position = first; position < end; ++position) {
    step->tokens.push_back(request->TokenAt(position));
  }
  const RowUses uses = request->UsesOf(first, planned.count);
  request->AppendLogitsRows(uses, first, planned.count, first_row, &step->logits);

  const Phase phase = PhaseOf(first, request->prompt_tokens());
  columns_.push_back({request->recipe, phase});
  const int32_t new_from = std::clamp(request->most_submitted, first, end);
  SubmittedStep& submitted = submitted_.back();
  submitted.rows.push_back(
      {.request = request,
       .life = request->life,
       .first = first,
       .count = planned.count,
       .uses = uses,
       .work = WorkOf(phase, end - new_from,
                      classes_.AttendedKeys(request->recipe, phase, new_from, end)),
       .recomputed = WorkOf(phase, new_from - first,
                            classes_.AttendedKeys(request->recipe, phase, first, new_from)),
       .full_attention =
           WorkOf(phase, end - new_from,
                  SumVisibleKeys(kernels::KeySpan{}, new_from, end) * device_.num_layers),
       .last_step = request->last_step,
       .most_submitted = request->most_submitted});
  request->submitted = end;
  request->most_submitted = std::max(request->most_submitted, end);
  request->draws_in_flight += uses.draws;
  ++request->rows_in_flight;
  request->last_step = step->id;
}

}  // namespace swaa
