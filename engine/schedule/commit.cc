// What a step's result means.

#include <algorithm>
#include <iterator>
#include <new>
#include <span>
#include <utility>

#include "base/check.h"
#include "engine/schedule/scheduler.h"

namespace swaa {
namespace {

// How many pages of requests that ended go back a step: giving back all those of a long one would
// hold the step up by milliseconds, and seldom are they wanted at once.
constexpr int64_t kReleasedPagesPerStep = 1024;

void Append(RequestProgress progress, RequestProgress* all) {
  if (all->prompt_logprobs.empty()) all->prompt_logprobs_first = progress.prompt_logprobs_first;
  std::move(progress.prompt_logprobs.begin(), progress.prompt_logprobs.end(),
            std::back_inserter(all->prompt_logprobs));
  std::move(progress.tokens.begin(), progress.tokens.end(), std::back_inserter(all->tokens));
  SWAA_CHECK(!all->finished.has_value()) << "rows beyond the end";
  all->finished = progress.finished;
  all->stop = std::move(progress.stop);
}

}  // namespace

StepWork Scheduler::SubmittedStep::Work() const {
  StepWork work;
  for (const SubmittedRows& one : rows) {
    work += one.work;
    work += one.recomputed;
  }
  return work;
}

Scheduler::CommittedStep Scheduler::Commit(StepResult result, SteadyTime now) {
  SWAA_CHECK(!submitted_.empty()) << "step " << result.id << " was not submitted";
  SubmittedStep step = std::move(submitted_.front());
  submitted_.pop_front();
  SWAA_CHECK_EQ(result.id, step.id);
  Settle(step.id);
  CommittedStep committed{.work = step.Work(),
                          .shadow = !step.rows.empty() && step.rows.front().request->shadow()};
  for (const SubmittedRows& rows : step.rows) --rows.request->rows_in_flight;
  if (result.status.ok()) {
    committed.attributed_seconds = BookTime(step, result.seconds);
    CommitRows(std::move(step), std::move(result.tokens), now);
  } else {
    FailStep(step, result.status, now);
  }
  retired_.Release(kReleasedPagesPerStep);
  return committed;
}

// No step up to this one reads anything any more.
void Scheduler::Settle(uint64_t step) {
  settled_ = step;
  retired_.Settle(step);
  std::erase_if(settling_slots_, [&](const std::pair<uint64_t, int32_t>& settling) {
    if (settling.first > step) return false;
    free_slots_.push_back(settling.second);
    return true;
  });
}

// Returns what was attributed to requests. A shadow's steps, which are its alone, say nothing of
// steps that are shared.
double Scheduler::BookTime(const SubmittedStep& step, double seconds) {
  const StepWork work = step.Work();
  double attributed = 0;
  const RequestState* last = nullptr;
  for (const SubmittedRows& rows : step.rows) {
    RequestCost& cost = rows.request->cost;
    // A request that has rows of both phases was in the step once.
    if (rows.request.get() != std::exchange(last, rows.request.get())) cost.step_seconds += seconds;
    const std::optional<double> own = step_time_model_.Cost(work, rows.work);
    cost.known = cost.known && own.has_value();
    if (!own.has_value()) continue;
    const double recomputed = *step_time_model_.Cost(work, rows.recomputed);
    cost.device_seconds += *own;
    cost.recomputed_device_seconds += recomputed;
    cost.full_attention_device_seconds += *step_time_model_.Cost(work, rows.full_attention);
    attributed += *own + recomputed;
  }
  if (!step.rows.front().request->shadow()) step_time_model_.Observe(work, seconds);
  return attributed;
}

void Scheduler::FailStep(const SubmittedStep& step, const absl::Status& status, SteadyTime now) {
  for (const SubmittedRows& rows : step.rows) {
    if (!rows.request->ended) Fail(rows.request, status, now);
  }
}

void Scheduler::CommitRows(SubmittedStep step, std::vector<ScoredToken> tokens, SteadyTime now) {
  size_t next = 0;
  RequestProgress progress;
  for (size_t i = 0; i < step.rows.size(); ++i) {
    const SubmittedRows& rows = step.rows[i];
    const size_t logits = rows.uses.scored + (rows.uses.draws ? size_t{1} : 0);
    SWAA_CHECK_LE(next + logits, tokens.size()) << "step " << step.id;
    const auto results = std::span(tokens).subspan(next, logits);
    next += logits;
    RequestState* request = rows.request.get();
    if (request->ended) continue;  // what was computed past a stop counts nowhere
    try {
      Append(request->Commit(rows.first, rows.count, rows.uses, results), &progress);
    } catch (const std::bad_alloc&) {
      progress = {};
      Fail(rows.request, out_of_memory_, now);
      continue;
    }
    // Of an earlier life its tokens count, and its pages are gone.
    if (rows.life == request->life) {
      SWAA_CHECK_EQ(rows.first, request->computed) << "request " << request->request.id;
      request->computed = rows.first + rows.count;
    }
    // A request that has rows of both phases is told once.
    if (i + 1 < step.rows.size() && step.rows[i + 1].request.get() == request) continue;
    // Before anything is released: a page that goes back then stays evictable.
    if (UsesPrefixCache(*request) && rows.life == request->life) Register(request);
    Tell(rows.request, std::exchange(progress, {}), now);
  }
  ReleaseInvisible(step);
}

void Scheduler::Register(RequestState* request) {
  try {
    cache_.Register(request->prefix_key, request->known_tokens(), request->computed, request->pages,
                    &request->cursor);
  } catch (const std::bad_alloc&) {
    request->cursor.closed = true;  // what follows is computed and not cached
  }
}

void Scheduler::ReleaseInvisible(const SubmittedStep& step) {
  for (const SubmittedRows& rows : step.rows) {
    RequestState* request = rows.request.get();
    if (request->slot < 0 || rows.life != request->life) continue;
    try {
      request->pages.ReleaseInvisible(request->request.recipe, request->computed, request->slot,
                                      &pool_, &updates_);
    } catch (const std::bad_alloc&) {  // they go with a later step
    }
    UpdateLoad(request);
  }
}

void Scheduler::Tell(const Request& request, RequestProgress progress, SteadyTime now) {
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

}  // namespace swaa
