// The plan of a step.

#include "engine/schedule/plan.h"

#include <algorithm>
#include <numeric>
#include <optional>

#include "kernels/page_count.h"
#include "kernels/types.h"

namespace swaa {
namespace {

constexpr int32_t kPage = kernels::kPageTokens;

using kernels::PageCount;

std::vector<size_t> ByRank(const std::vector<RequestView>& requests) {
  std::vector<size_t> order(requests.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return requests[a].rank < requests[b].rank; });
  return order;
}

bool IsDecode(const RequestView& request) {
  return request.submitted >= request.prompt_tokens && request.target - request.submitted == 1;
}

// Its last token is under way: whatever that is, the request ends with it.
bool IsEnding(const RequestView& request) { return request.submitted == request.target; }

class Planner {
 public:
  Planner(const PlanInput& input, PlanQueue* queue)
      : input_(input),
        queue_(queue),
        budget_(input.token_budget),
        free_pages_(input.free_pages),
        settling_pages_(input.settling_pages),
        free_slots_(input.free_slots),
        settling_slots_(input.settling_slots),
        order_(ByRank(input.running)),
        progress_(input.running.size()) {
    for (size_t i = 0; i < progress_.size(); ++i) {
      progress_[i].submitted = input.running[i].submitted;
      if (!IsEnding(input.running[i])) continue;
      settling_pages_ += input.running[i].pages_freed;
      ++settling_slots_;
    }
  }

  StepPlan Run() && {
    PlanRunning(/*decodes=*/true);
    PlanRunning(/*decodes=*/false);
    AdmitAbove(std::nullopt);
    return std::move(plan_);
  }

 private:
  struct Progress {
    int32_t submitted = 0;  // after this plan
    int64_t pages = 0;      // taken by this plan
    bool preempted = false;
  };

  bool MayRun(const Rank& rank) const { return !rank.shadow || input_.shadows; }

  void PlanRunning(bool decodes) {
    for (size_t rank = 0; rank < order_.size(); ++rank) {
      const size_t index = order_[rank];
      const RequestView& request = input_.running[index];
      if (IsEnding(request) || IsDecode(request) != decodes || !MayRun(request.rank)) continue;
      if (!decodes) AdmitAbove(request.rank);
      if (!progress_[index].preempted) PlanOne(request, rank);
    }
  }

  void PlanOne(const RequestView& request, size_t rank) {
    Progress& progress = progress_[order_[rank]];
    while (budget_ > 0 && progress.submitted < request.target) {
      int32_t count = ChunkEnd(request, progress.submitted) - progress.submitted;
      count = MakeRoomFor(progress.submitted, count, rank);
      if (count == 0) return;
      progress.pages += TakeRows({false, order_[rank], progress.submitted, count});
      progress.submitted += count;
      if (progress.submitted != request.prompt_tokens) return;  // one chunk a phase
    }
  }

  // How many of `count` rows the free pages hold, if need be after preempting what ranks lower.
  int32_t MakeRoomFor(int32_t submitted, int32_t count, size_t rank) {
    for (;;) {
      const int32_t fitting = FittingRows(submitted, count, free_pages_);
      if (fitting > 0) return fitting;
      if (FittingRows(submitted, count, free_pages_ + settling_pages_) > 0) {
        awaits_settling_ = true;
        free_pages_ = settling_pages_ = 0;  // kept for it
      }
      if (awaits_settling_ || !plan_.admitted.empty() || !PreemptBelow(rank)) return 0;
    }
  }

  // Where the next chunk of a request ends, by phase, budget and alignment.
  int32_t ChunkEnd(const RequestView& request, int32_t submitted) const {
    const bool prefill = submitted < request.prompt_tokens;
    // Its answer is known and could be computed at once, but its time is to be that of decoding.
    if (request.rank.shadow && !prefill) return submitted + 1;
    const int32_t phase_end =
        prefill ? std::min(request.prompt_tokens, request.target) : request.target;
    const int32_t end = std::min<int64_t>(phase_end, int64_t{submitted} + budget_);
    if (end == phase_end) return end;
    const int32_t aligned = end / input_.chunk_alignment * input_.chunk_alignment;
    return aligned > submitted ? aligned : end;
  }

  int64_t PagesFor(int32_t submitted, int32_t count) const {
    return (PageCount(int64_t{submitted} + count) - PageCount(submitted)) * input_.num_layers;
  }

  // How many of `count` rows from `submitted` on have room in `pages` pages.
  int32_t FittingRows(int32_t submitted, int32_t count, int64_t pages) const {
    if (PagesFor(submitted, count) <= pages) return count;
    const int64_t blocks = PageCount(submitted) + pages / input_.num_layers;
    return static_cast<int32_t>(std::clamp<int64_t>(blocks * kPage - submitted, 0, count));
  }

  // Adds rows to the plan; the pages they take.
  int64_t TakeRows(const PlannedRows& rows) {
    const int64_t pages = PagesFor(rows.first, rows.count);
    free_pages_ -= pages;
    budget_ -= rows.count;
    plan_.rows.push_back(rows);
    return pages;
  }

  bool MayPreempt(size_t index) const {
    return !progress_[index].preempted && !IsEnding(input_.running[index]);
  }

  // Preempts the lowest-ranked request below `rank` that holds pages, with all it had in this plan.
  bool PreemptBelow(size_t rank) {
    for (size_t lowest = order_.size() - 1; lowest > rank; --lowest) {
      const size_t index = order_[lowest];
      const Progress& victim = progress_[index];
      if (!MayPreempt(index) || input_.running[index].pages_held + victim.pages == 0) continue;
      Preempt(index);
      return true;
    }
    return false;
  }

  void Preempt(size_t index) {
    const RequestView& request = input_.running[index];
    Progress& victim = progress_[index];
    victim.preempted = true;
    plan_.preempted.push_back(index);
    (request.in_flight ? settling_pages_ : free_pages_) += request.pages_freed;
    free_pages_ += victim.pages;
    std::erase_if(plan_.rows, [&](const PlannedRows& rows) {
      if (rows.queued || rows.request != index) return false;
      budget_ += rows.count;
      return true;
    });
  }

  // Pages that a running request may take before the newcomers' targets: up to its own target if it
  // still has some way to go, one block a layer if it decodes.
  int64_t ReservedFor(size_t index) const {
    const Progress& progress = progress_[index];
    const RequestView& request = input_.running[index];
    if (!MayPreempt(index) || request.rank.shadow) return 0;
    if (progress.submitted >= request.target) return input_.num_layers;
    return std::max<int64_t>(0, request.peak_pages - request.pages_held - progress.pages);
  }

  int64_t Reserved() const {
    int64_t reserved = reserved_for_newcomers_;
    for (size_t i = 0; i < progress_.size(); ++i) reserved += ReservedFor(i);
    return reserved;
  }

  bool OutranksARunning(const Rank& rank) const {
    return std::any_of(order_.rbegin(), order_.rend(), [&](size_t index) {
      return MayPreempt(index) && rank < input_.running[index].rank;
    });
  }

  // Admits queued requests of higher rank than this, or all.
  void AdmitAbove(std::optional<Rank> rank) {
    while (!admission_closed_ && next_queued_ < queue_->size() && budget_ > 0) {
      const Rank of_next = queue_->RankOf(next_queued_);
      if ((rank.has_value() && of_next > *rank) || !MayRun(of_next)) return;
      // One at a time, and alone in its steps.
      if (of_next.shadow && !input_.running.empty()) return;
      if (!plan_.preempted.empty() || (free_slots_ == 0 && !OutranksARunning(of_next))) return;
      const RequestView request = queue_->View(next_queued_);
      if (!request.ready || !Admit(request)) {
        if (request.ready) PreemptForNewcomer(request);
        admission_closed_ = true;
      }
      ++next_queued_;
      if (of_next.shadow) return;
    }
  }

  int64_t PagesNeeded(const RequestView& newcomer) const {
    return newcomer.peak_pages - (newcomer.cached_pages - newcomer.cached_free_pages);
  }

  bool Admit(const RequestView& request) {
    const bool alone = input_.running.empty() && plan_.admitted.empty();
    const bool fits = PagesNeeded(request) <= free_pages_ - Reserved() || alone;
    if (free_slots_ == 0 || !fits) return false;
    free_pages_ -= request.cached_free_pages;
    const auto [submitted, taken] = TakeNewcomersRows(request, next_queued_);
    if (submitted == request.submitted) {
      free_pages_ += request.cached_free_pages;
      return false;
    }
    plan_.admitted.push_back(next_queued_);
    --free_slots_;
    const int64_t held = request.cached_pages + taken;
    reserved_for_newcomers_ += submitted < request.target
                                   ? std::max<int64_t>(0, request.peak_pages - held)
                                   : input_.num_layers;
    return true;
  }

  // Makes room for a newcomer by preempting running requests of lower rank, lowest first: if that
  // can do it, and only as many as it takes.
  void PreemptForNewcomer(const RequestView& newcomer) {
    if (awaits_settling_ || !plan_.admitted.empty()) return;
    const int64_t needed = PagesNeeded(newcomer);
    int64_t slots = free_slots_ + settling_slots_;
    int64_t most_pages = free_pages_ + settling_pages_ - Reserved();
    if (slots > 0 && needed <= most_pages) return;  // it settles
    std::vector<size_t> victims;                    // lowest first
    for (auto it = order_.rbegin(); it != order_.rend(); ++it) {
      if (input_.running[*it].rank < newcomer.rank) break;
      if (!MayPreempt(*it)) continue;
      victims.push_back(*it);
      most_pages += input_.running[*it].pages_held + progress_[*it].pages + ReservedFor(*it);
    }
    if (victims.empty() || needed > most_pages) return;
    for (const size_t victim : victims) {
      if (slots > 0 && needed <= free_pages_ + settling_pages_ - Reserved()) return;
      Preempt(victim);
      ++slots;
    }
  }

  struct Taken {
    int32_t submitted;
    int64_t pages;
  };
  Taken TakeNewcomersRows(const RequestView& request, size_t index) {
    Taken taken{request.submitted, 0};
    while (budget_ > 0 && taken.submitted < request.target) {
      const int32_t count = FittingRows(
          taken.submitted, ChunkEnd(request, taken.submitted) - taken.submitted, free_pages_);
      if (count == 0) break;
      taken.pages += TakeRows({true, index, taken.submitted, count});
      taken.submitted += count;
      if (taken.submitted != request.prompt_tokens) break;  // one chunk a phase
    }
    return taken;
  }

  const PlanInput& input_;
  PlanQueue* const queue_;
  int32_t budget_;
  int64_t free_pages_;
  int64_t settling_pages_;
  int32_t free_slots_;
  int32_t settling_slots_;
  std::vector<size_t> order_;  // of running, by rank
  std::vector<Progress> progress_;
  size_t next_queued_ = 0;
  int64_t reserved_for_newcomers_ = 0;
  bool awaits_settling_ = false;
  bool admission_closed_ = false;
  StepPlan plan_;
};

}  // namespace

StepPlan PlanStep(const PlanInput& input, PlanQueue* queue) { return Planner(input, queue).Run(); }

}  // namespace swaa
