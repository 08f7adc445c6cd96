// Requests, pages and slots, step by step.

#include "engine/schedule/scheduler.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "engine/recipe/visibility.h"
#include "engine/schedule/request_stats.h"

namespace swaa {
Scheduler::Scheduler(const SchedulerOptions& options, const DeviceInfo& device,
                     const Tokenizer* tokenizer)
    : options_(options),
      device_(device),
      tokenizer_(tokenizer),
      pool_(device.num_pages, [this](int32_t page) { cache_.OnEvicted(page); }),
      cache_(device.num_layers, &pool_) {
  const int32_t slots = std::min(options.max_running_requests, device.num_slots);
  for (int32_t slot = slots - 1; slot >= 0; --slot) free_slots_.push_back(slot);
}

void Scheduler::Add(GenerationRequest request, std::shared_ptr<GenerationSink> sink,
                    int32_t max_output) {
  Enqueue(std::make_unique<RequestState>(std::move(request), std::move(sink), next_arrival_++,
                                         max_output, device_.num_layers, tokenizer_));
}

void Scheduler::Enqueue(Request request) {
  const auto place = std::upper_bound(queued_.begin(), queued_.end(), request,
                                      [](const Request& a, const Request& b) {
                                        return a->request.priority != b->request.priority
                                                   ? a->request.priority > b->request.priority
                                                   : a->arrival < b->arrival;
                                      });
  queued_.insert(place, std::move(request));
}

std::vector<RequestState*> Scheduler::All() const {
  std::vector<RequestState*> all;
  for (const Request& request : running_) all.push_back(request.get());
  for (const Request& request : queued_) all.push_back(request.get());
  return all;
}

void Scheduler::Cancel(const std::string& id, const GenerationSink* sink,
                       const absl::Status& status) {
  for (RequestState* request : All()) {
    if (request->request.id == id && request->sink.get() == sink) {
      Fail(request, status, absl::Now());
    }
  }
}

void Scheduler::Abort(const std::string& id) {
  for (RequestState* request : All()) {
    if (request->request.id != id) continue;
    if (request->accepted) {
      Finish(request, FinishReason::kCancelled, {}, absl::Now());
    } else {
      Fail(request, absl::CancelledError(absl::StrCat("request ", id, " was aborted")),
           absl::Now());
    }
  }
}

void Scheduler::RefuseQueued(const absl::Status& status) {
  for (RequestState* request : All()) {
    if (!request->accepted) Fail(request, status, absl::Now());
  }
}

void Scheduler::ExpireDeadlines(absl::Time now) {
  for (RequestState* request : All()) {
    if (request->request.deadline <= now) {
      Fail(request, absl::DeadlineExceededError("the request's deadline has passed"), now);
    }
  }
}

RequestView Scheduler::ViewOf(const RequestState& request) const {
  RequestView view{.priority = request.request.priority,
                   .arrival = request.arrival,
                   .prompt_tokens = request.prompt_tokens(),
                   .computed = request.computed,
                   .target = request.target(),
                   .pages_held = request.pages.held()};
  if (view.target - view.computed > 1 || view.computed < view.prompt_tokens) {
    view.peak_pages = PeakPages(request.request.recipe, view.target, options_.max_batch_tokens);
  }
  return view;
}

RequestView Scheduler::ViewOfQueued(RequestState* request) const {
  request->hit = {};
  if (options_.prefix_cache) {
    const GenerationRequest& r = request->request;
    request->hit = cache_.Find(
        {.salt = r.cache_salt},
        [&](int64_t p) { return request->TokenAt(static_cast<int32_t>(p)); }, r.recipe,
        request->prompt_tokens(), request->most_cached_tokens());
  }
  RequestView view = ViewOf(*request);
  view.computed = static_cast<int32_t>(request->hit.tokens);
  view.cached_pages = request->hit.pages;
  view.cached_free_pages = request->hit.evictable_pages;
  return view;
}

StepPlan Scheduler::Plan() {
  PlanInput input;
  input.token_budget = std::min(options_.max_batch_tokens, device_.max_step_tokens);
  input.num_layers = device_.num_layers;
  input.free_pages = pool_.available_pages();
  input.free_slots = static_cast<int32_t>(free_slots_.size());
  for (const Request& request : running_) input.running.push_back(ViewOf(*request));
  // No step takes more new pages than this; with as many at hand nobody is preempted, and nobody
  // need count whose pages are shared.
  const int64_t most_taken =
      (input.token_budget / kernels::kPageTokens + 1 + static_cast<int64_t>(running_.size())) *
      device_.num_layers;
  if (input.free_pages < most_taken) {
    for (size_t i = 0; i < running_.size(); ++i) {
      input.running[i].pages_freed = running_[i]->pages.Exclusive(pool_);
    }
  }
  // As many of the queue's head as the step could begin.
  int64_t tokens = 0;
  for (const Request& request : queued_) {
    if (tokens >= input.token_budget ||
        static_cast<int32_t>(input.queued.size()) >= input.free_slots) {
      break;
    }
    input.queued.push_back(ViewOfQueued(request.get()));
    tokens += input.queued.back().target - input.queued.back().computed;
  }
  return PlanStep(input);
}

std::optional<Step> Scheduler::NextStep(absl::Time now) {
  SWAA_CHECK(!step_in_flight_) << "the last step was not committed";
  if (idle()) return std::nullopt;
  StepPlan plan = Plan();
  while (plan.rows.empty() && !plan.preempted.empty()) {
    // What it freed was not known before: plan again.
    Preempt(plan.preempted);
    plan = Plan();
  }
  if (plan.rows.empty()) {
    // Only what cannot run at all stays behind while nothing runs: fail it, never stall in silence.
    SWAA_CHECK(running_.empty()) << running_.size() << " requests run and none moves";
    Fail(queued_.front().get(),
         absl::ResourceExhaustedError("the request cannot be admitted although nothing runs"), now);
    return std::nullopt;
  }
  // Pointers first: preemption and admission move requests between the lists.
  std::vector<RequestState*> rows;
  for (const PlannedRows& planned : plan.rows) {
    rows.push_back((planned.queued ? queued_ : running_)[planned.request].get());
  }
  std::vector<RequestState*> admitted;
  for (size_t index : plan.admitted) admitted.push_back(queued_[index].get());
  Preempt(plan.preempted);
  for (RequestState* request : admitted) Admit(request, now);

  Step step;
  step.id = next_step_++;
  step_prefill_tokens_ = step_decode_tokens_ = 0;
  for (size_t i = 0; i < rows.size(); ++i) AddRows(rows[i], plan.rows[i], &step);
  step.page_table_updates = std::exchange(updates_, {});
  step_in_flight_ = true;
  return step;
}

void Scheduler::Preempt(const std::vector<size_t>& running) {
  std::vector<RequestState*> victims;
  for (size_t index : running) victims.push_back(running_[index].get());
  for (RequestState* victim : victims) {
    Vacate(victim);
    victim->computed = 0;
    ++victim->preemptions;
    ++preemptions_;
    const auto it = std::find_if(running_.begin(), running_.end(),
                                 [&](const Request& r) { return r.get() == victim; });
    Request preempted = std::move(*it);
    running_.erase(it);
    Enqueue(std::move(preempted));
  }
}

void Scheduler::Admit(RequestState* request, absl::Time now) {
  request->slot = free_slots_.back();
  free_slots_.pop_back();
  const auto it = std::find_if(queued_.begin(), queued_.end(),
                               [&](const Request& r) { return r.get() == request; });
  running_.push_back(std::move(*it));
  queued_.erase(it);
  request->computed = static_cast<int32_t>(request->hit.tokens);
  cache_.Adopt(request->hit, request->request.recipe, request->slot, &request->pages, &updates_);
  request->cursor = cache_.Follow(request->hit);
  if (request->accepted) return;
  request->cached_tokens = request->computed;
  request->accepted = true;
  request->admitted_at = now;
  request->sink->OnAccepted();
}

void Scheduler::AddRows(RequestState* request, const PlannedRows& rows, Step* step) {
  request->pages.Extend(int64_t{rows.first} + rows.count, request->slot, &pool_, &updates_);
  const auto first_row = static_cast<int32_t>(step->tokens.size());
  step->sequences.push_back({.slot = request->slot,
                             .first_row = first_row,
                             .query_count = rows.count,
                             .first_position = rows.first});
  const Phase phase = PhaseOf(rows.first, request->prompt_tokens());
  for (int32_t layer = 0; layer < device_.num_layers; ++layer) {
    step->spans.push_back(SpanOf(request->request.recipe, layer, phase));
  }
  (phase == Phase::kPrefill ? step_prefill_tokens_ : step_decode_tokens_) += rows.count;
  size_t logits = 0;
  for (int32_t i = 0; i < rows.count; ++i) {
    const int32_t position = rows.first + i;
    step->tokens.push_back(request->TokenAt(position));
    if (request->UseOfLogits(position) == LogitsUse::kNone) continue;
    step->logits.push_back(request->MakeLogitsRow(position, first_row + i));
    ++logits;
  }
  in_flight_.push_back({request, rows.first, rows.count, logits});
}

void Scheduler::Commit(StepResult result, absl::Time now) {
  SWAA_CHECK(step_in_flight_);
  step_in_flight_ = false;
  const std::vector<InFlight> in_flight = std::exchange(in_flight_, {});
  if (!result.status.ok()) {
    std::set<RequestState*> failed;
    for (const InFlight& rows : in_flight) failed.insert(rows.request);
    for (RequestState* request : failed) Fail(request, result.status, now);
    return;
  }
  size_t next = 0;
  for (const InFlight& rows : in_flight) {
    SWAA_CHECK_LE(next + rows.logits, result.tokens.size());
    RequestProgress progress = rows.request->Commit(
        rows.first, rows.count, std::span(result.tokens).subspan(next, rows.logits));
    next += rows.logits;
    if (options_.prefix_cache) RegisterBlocks(rows.request);
    // Only the last of a request's groups can finish it, so none after it is left dangling.
    Tell(rows.request, std::move(progress), now);
  }
  for (const Request& request : running_) {
    request->pages.ReleaseInvisible(request->request.recipe, request->computed, request->slot,
                                    &pool_, &updates_);
  }
}

// Before anything is released: a page that goes back then stays evictable.
void Scheduler::RegisterBlocks(RequestState* request) {
  const GenerationRequest& r = request->request;
  cache_.Register(
      {.salt = r.cache_salt}, [&](int64_t p) { return request->TokenAt(static_cast<int32_t>(p)); },
      r.recipe, request->prompt_tokens(), request->computed, request->pages, &request->cursor);
}

void Scheduler::Tell(RequestState* request, RequestProgress progress, absl::Time now) {
  if (!progress.prompt_logprobs.empty()) {
    request->sink->OnPromptLogprobs(progress.prompt_logprobs_first,
                                    std::move(progress.prompt_logprobs));
  }
  if (!progress.tokens.empty()) {
    request->first_token_at = std::min(request->first_token_at, now);
    request->sink->OnTokens(std::move(progress.tokens));
  }
  if (progress.finished.has_value()) {
    Finish(request, *progress.finished, std::move(progress.stop), now);
  }
}

void Scheduler::Finish(RequestState* request, FinishReason reason, StopCause stop, absl::Time now) {
  request->sink->OnFinished(
      {.reason = reason, .stop = std::move(stop), .stats = StatsOf(*request, device_, now)});
  Remove(request);
}

void Scheduler::Fail(RequestState* request, const absl::Status& status, absl::Time now) {
  request->sink->OnFailed(status, StatsOf(*request, device_, now));
  Remove(request);
}

void Scheduler::Remove(RequestState* request) {
  SWAA_CHECK(!step_in_flight_) << "request " << request->request.id
                               << " would lose pages that a step reads";
  Vacate(request);
  ended_.push_back(request->request.id);
  auto is_it = [&](const Request& r) { return r.get() == request; };
  if (std::erase_if(running_, is_it) == 0) std::erase_if(queued_, is_it);
}

void Scheduler::Vacate(RequestState* request) {
  if (request->slot < 0) return;
  cache_.Forget(&request->cursor);
  request->pages.ReleaseAll(request->slot, &pool_, &updates_);
  free_slots_.push_back(request->slot);
  request->slot = -1;
}

EngineLoad Scheduler::Load() const {
  EngineLoad load;
  load.running = static_cast<int32_t>(running_.size());
  load.queued = static_cast<int32_t>(queued_.size());
  load.used_pages = pool_.used_pages();
  load.total_pages = pool_.total_pages();
  load.evictable_pages = pool_.evictable_pages();
  load.preemptions = preemptions_;
  load.cached_blocks = cache_.blocks();
  for (const Request& request : running_) {
    RecipeLoad& recipe = load.recipes[request->request.recipe_label];
    ++recipe.running;
    recipe.kv_bytes += request->pages.held() * device_.page_bytes;
    recipe.full_attention_kv_bytes += request->pages.held_by_full_attention() * device_.page_bytes;
  }
  for (const Request& request : queued_) ++load.recipes[request->request.recipe_label].queued;
  return load;
}

std::vector<std::string> Scheduler::TakeEnded() { return std::exchange(ended_, {}); }

}  // namespace swaa
