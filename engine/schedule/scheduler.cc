// Requests from their arrival to their end.

#include "engine/schedule/scheduler.h"

#include <algorithm>
#include <new>
#include <utility>

#include "base/check.h"
#include "engine/schedule/out_of_memory.h"
#include "engine/schedule/request_stats.h"

namespace swaa {

Scheduler::Scheduler(const SchedulerOptions& options, const DeviceInfo& device,
                     const Tokenizer* tokenizer)
    : options_(options),
      device_(device),
      tokenizer_(tokenizer),
      pool_(
          device.num_pages, [this](int32_t page) { cache_.OnEvicted(page); },
          [this](int32_t page, bool held) { cache_.OnHeld(page, held); }),
      cache_(device.num_layers, &pool_),
      retired_(&pool_),
      classes_(device.num_layers),
      aborted_(absl::CancelledError("the request was aborted")),
      deadline_passed_(absl::DeadlineExceededError("the request's deadline has passed")),
      cannot_be_admitted_(
          absl::ResourceExhaustedError("the request cannot be admitted although nothing runs")),
      out_of_memory_(WithOutOfMemory(absl::ResourceExhaustedError(
          "the server has not the memory for the request now; try again later"))) {
  const int32_t slots = std::min(options.max_running_requests, device.num_slots);
  for (int32_t slot = slots - 1; slot >= 0; --slot) free_slots_.push_back(slot);
  settling_slots_.reserve(slots);
  running_.reserve(slots);
}

void Scheduler::Add(GenerationRequest request, std::shared_ptr<GenerationSink> sink,
                    int32_t max_output, SteadyTime now) {
  const bool shadow = request.request_class == RequestClass::kShadow;
  const Rank rank = shadow
                        ? Rank::OfShadow(now, next_order_++)
                        : Rank::Of(now, request.priority, options_.priority_aging, next_order_++);
  auto state = std::make_shared<RequestState>(std::move(request), std::move(sink), rank, max_output,
                                              tokenizer_);
  ReserveQueue();
  const AdapterHandle& adapter = state->request.adapter;
  if (!shadow && adapter != nullptr) state->adapter_load = adapter_loads_.Use(adapter->name);
  try {
    state->load = shadow ? &shadow_load_ : loads_.Use(state->request.recipe_label);
  } catch (const std::bad_alloc&) {
    if (state->adapter_load != nullptr) adapter_loads_.Release(adapter->name);
    throw;
  }
  earliest_deadline_ = std::min(earliest_deadline_, state->request.deadline);
  Enqueue(std::move(state));
}

// For one more request, and for those that run, which may come back.
void Scheduler::ReserveQueue() {
  const size_t wanted = queued_.size() + running_.size() + 1;
  if (queued_.capacity() < wanted) queued_.reserve(2 * wanted);
}

void Scheduler::Enqueue(Request request) {
  request->CountQueued(1);
  const auto place =
      std::upper_bound(queued_.begin(), queued_.end(), request, &RequestState::RanksBefore);
  queued_.insert(place, std::move(request));
}

// Null: none has it.
Scheduler::Request Scheduler::FindById(const std::string& id) const {
  for (const std::vector<Request>* list : {&running_, &queued_}) {
    for (const Request& request : *list) {
      if (request->request.id == id) return request;
    }
  }
  return nullptr;
}

// From the lowest rank up: those that stay keep their places.
void Scheduler::FailWhere(absl::FunctionRef<bool(const RequestState&)> ends,
                          const absl::Status& status, SteadyTime now) {
  for (std::vector<Request>* list : {&queued_, &running_}) {
    for (size_t i = list->size(); i-- > 0;) {
      if (ends(*(*list)[i])) Fail((*list)[i], status, now);
    }
  }
}

void Scheduler::Cancel(const std::string& id, const GenerationSink* sink,
                       const absl::Status& status) {
  const Request request = FindById(id);
  if (request == nullptr || request->sink.get() != sink) return;
  Fail(request, status, SteadyClock::now());
}

void Scheduler::Abort(const std::string& id) {
  const Request request = FindById(id);
  if (request == nullptr) return;
  if (request->accepted) {
    Finish(request, FinishReason::kCancelled, {}, SteadyClock::now());
  } else {
    Fail(request, aborted_, SteadyClock::now());
  }
}

void Scheduler::RefuseQueued(const absl::Status& status) {
  FailWhere([](const RequestState& request) { return !request.accepted; }, status,
            SteadyClock::now());
}

void Scheduler::DropShadows(const absl::Status& status) {
  FailWhere([](const RequestState& request) { return request.shadow(); }, status,
            SteadyClock::now());
}

bool Scheduler::UsesPrefixCache(const RequestState& request) const {
  return options_.prefix_cache && !request.shadow();
}

// Lists are by rank: the first tells of all.
bool Scheduler::ShadowsMayRun() const {
  const auto serves = [](const std::vector<Request>& list) {
    return !list.empty() && !list.front()->shadow();
  };
  return submitted_.empty() && !serves(running_) && !serves(queued_);
}

void Scheduler::ExpireDeadlines(SteadyTime now) {
  if (now < earliest_deadline_) return;
  earliest_deadline_ = SteadyTime::max();
  const auto expired = [&](const RequestState& request) {
    if (request.request.deadline <= now) return true;
    earliest_deadline_ = std::min(earliest_deadline_, request.request.deadline);
    return false;
  };
  FailWhere(expired, deadline_passed_, now);
}

void Scheduler::FailAll(const absl::Status& status) {
  FailWhere([](const RequestState&) { return true; }, status, SteadyClock::now());
  submitted_.clear();
  Settle(next_step_ - 1);
}

void Scheduler::Finish(const Request& request, FinishReason reason, StopCause stop,
                       SteadyTime now) {
  on_ending_(request->request.id, request->slot >= 0);
  request->sink->OnFinished(
      {.reason = reason, .stop = std::move(stop), .stats = StatsOf(*request, device_, now)});
  Remove(request);
}

void Scheduler::Fail(const Request& request, const absl::Status& status, SteadyTime now) {
  on_ending_(request->request.id, request->slot >= 0);
  request->sink->OnFailed(status, StatsOf(*request, device_, now));
  Remove(request);
}

// The request itself lives on in the steps that have rows of it.
void Scheduler::Remove(const Request& ending) {
  // `ending` may be an element of a list.
  const Request request = ending;  // NOLINT(performance-unnecessary-copy-initialization)
  SWAA_CHECK(!request->ended) << "request " << request->request.id << " ended twice";
  request->ended = true;
  std::vector<Request>& list = request->slot >= 0 ? running_ : queued_;
  if (request->slot >= 0) {
    request->CountRunning(-1);
  } else {
    request->CountQueued(-1);
  }
  Vacate(request.get());
  cache_.Forget(&request->lookup);
  std::erase(list, request);
  if (!request->shadow()) loads_.Release(request->request.recipe_label);
  if (request->adapter_load != nullptr) adapter_loads_.Release(request->request.adapter->name);
  ++ended_;
}

// Takes pages and slot from a request that runs; they are free once the submitted steps that read
// them are committed.
void Scheduler::Vacate(RequestState* request) {
  if (request->slot < 0) return;
  cache_.Forget(&request->cursor);
  request->peak_pages = std::max(request->peak_pages, request->pages.peak_held());
  retired_.Add(std::exchange(request->pages, {}), request->last_step);
  UpdateLoad(request);
  const int32_t slot = std::exchange(request->slot, -1);
  if (request->last_step <= settled_) {
    free_slots_.push_back(slot);
  } else {
    settling_slots_.emplace_back(request->last_step, slot);
  }
  const int32_t recipe = std::exchange(request->recipe, -1);
  if (recipe >= 0) classes_.Remove(recipe);  // none, if memory ran out in its admission
}

void Scheduler::UpdateLoad(RequestState* request) {
  const int64_t full = request->pages.held_by_full_attention();
  request->load->kv_bytes += (request->pages.held() - request->loaded_pages) * device_.page_bytes;
  request->load->full_attention_kv_bytes +=
      (full - request->loaded_full_pages) * device_.page_bytes;
  request->loaded_pages = request->pages.held();
  request->loaded_full_pages = full;
}

EngineLoad Scheduler::Totals() const {
  EngineLoad totals;
  totals.running = static_cast<int32_t>(running_.size()) - shadow_load_.running;
  totals.queued = static_cast<int32_t>(queued_.size()) - shadow_load_.queued;
  totals.used_pages =
      pool_.used_pages() - retired_.pages() - shadow_load_.kv_bytes / device_.page_bytes;
  totals.total_pages = pool_.total_pages();
  totals.evictable_pages = pool_.evictable_pages();
  totals.preemptions = preemptions_;
  totals.cached_blocks = cache_.blocks();
  return totals;
}

LoadSnapshot Scheduler::Snapshot() const {
  LoadSnapshot snapshot{.totals = Totals()};
  snapshot.recipes = loads_.Snapshot();
  snapshot.adapters = adapter_loads_.Snapshot();
  return snapshot;
}

}  // namespace swaa
