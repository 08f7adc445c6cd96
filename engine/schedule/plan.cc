// The plan of a step.

#include "engine/schedule/plan.h"

#include <algorithm>
#include <numeric>

#include "kernels/types.h"

namespace swaa {
namespace {

constexpr int32_t kPage = kernels::kPageTokens;

int64_t Blocks(int64_t positions) { return (positions + kPage - 1) / kPage; }

bool RanksBefore(const RequestView& a, const RequestView& b) {
  return a.priority != b.priority ? a.priority > b.priority : a.arrival < b.arrival;
}

std::vector<size_t> ByRank(const std::vector<RequestView>& requests) {
  std::vector<size_t> order(requests.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return RanksBefore(requests[a], requests[b]); });
  return order;
}

bool IsDecode(const RequestView& request) {
  return request.computed >= request.prompt_tokens && request.target - request.computed == 1;
}

class Planner {
 public:
  explicit Planner(const PlanInput& input)
      : input_(input),
        budget_(input.token_budget),
        free_pages_(input.free_pages),
        order_(ByRank(input.running)),
        progress_(input.running.size()) {
    for (size_t i = 0; i < progress_.size(); ++i) progress_[i].computed = input.running[i].computed;
  }

  StepPlan Run() && {
    PlanRunning(/*decodes=*/true);
    PlanRunning(/*decodes=*/false);
    if (plan_.preempted.empty() && !waiting_for_pages_) Admit();
    return std::move(plan_);
  }

 private:
  struct Progress {
    int32_t computed = 0;  // after this plan
    int64_t pages = 0;     // taken by this plan
    bool preempted = false;
  };

  void PlanRunning(bool decodes) {
    for (size_t rank = 0; rank < order_.size(); ++rank) {
      const size_t index = order_[rank];
      const RequestView& request = input_.running[index];
      if (progress_[index].preempted || IsDecode(request) != decodes) continue;
      PlanOne(request, rank);
    }
  }

  void PlanOne(const RequestView& request, size_t rank) {
    Progress& progress = progress_[order_[rank]];
    while (budget_ > 0 && progress.computed < request.target) {
      int32_t count = ChunkEnd(request, progress.computed) - progress.computed;
      while (FittingRows(progress.computed, count) == 0 && PreemptBelow(rank)) {
      }
      count = FittingRows(progress.computed, count);
      if (count == 0) {
        waiting_for_pages_ = true;
        return;
      }
      progress.pages += TakeRows({false, order_[rank], progress.computed, count});
      progress.computed += count;
      if (progress.computed != request.prompt_tokens) return;  // one chunk a phase
    }
  }

  // Where the next chunk of a request ends, by phase, budget and alignment.
  int32_t ChunkEnd(const RequestView& request, int32_t computed) const {
    const bool prefill = computed < request.prompt_tokens;
    const int32_t phase_end =
        prefill ? std::min(request.prompt_tokens, request.target) : request.target;
    const int32_t end = std::min<int64_t>(phase_end, int64_t{computed} + budget_);
    if (end == phase_end) return end;
    const int32_t aligned = end / input_.chunk_alignment * input_.chunk_alignment;
    return aligned > computed ? aligned : end;
  }

  int64_t PagesFor(int32_t computed, int32_t count) const {
    return (Blocks(int64_t{computed} + count) - Blocks(computed)) * input_.num_layers;
  }

  // How many of `count` rows from `computed` on have room in the free pages.
  int32_t FittingRows(int32_t computed, int32_t count) const {
    if (PagesFor(computed, count) <= free_pages_) return count;
    const int64_t blocks = Blocks(computed) + free_pages_ / input_.num_layers;
    return static_cast<int32_t>(std::clamp<int64_t>(blocks * kPage - computed, 0, count));
  }

  // Adds rows to the plan; the pages they take.
  int64_t TakeRows(const PlannedRows& rows) {
    const int64_t pages = PagesFor(rows.first, rows.count);
    free_pages_ -= pages;
    budget_ -= rows.count;
    plan_.rows.push_back(rows);
    return pages;
  }

  // Preempts the lowest-ranked request below `rank` that holds pages, with all it had in this plan.
  bool PreemptBelow(size_t rank) {
    for (size_t lowest = order_.size() - 1; lowest > rank; --lowest) {
      const size_t index = order_[lowest];
      Progress& victim = progress_[index];
      if (victim.preempted || input_.running[index].pages_held + victim.pages == 0) continue;
      victim.preempted = true;
      plan_.preempted.push_back(index);
      free_pages_ += input_.running[index].pages_freed + victim.pages;
      std::erase_if(plan_.rows, [&](const PlannedRows& rows) {
        if (rows.request != index) return false;
        budget_ += rows.count;
        return true;
      });
      return true;
    }
    return false;
  }

  // Pages that running requests may take before the newcomers' targets: up to their own targets for
  // those that still have some way to go, one block a layer for those that decode.
  int64_t Reserved() const {
    int64_t reserved = 0;
    for (size_t i = 0; i < progress_.size(); ++i) {
      const RequestView& request = input_.running[i];
      const int64_t held = request.pages_held + progress_[i].pages;
      reserved += progress_[i].computed < request.target
                      ? std::max<int64_t>(0, request.peak_pages - held)
                      : input_.num_layers;
    }
    return reserved;
  }

  void Admit() {
    int32_t slots = input_.free_slots;
    int64_t reserved = Reserved();
    for (size_t index : ByRank(input_.queued)) {
      const RequestView& request = input_.queued[index];
      const bool alone = input_.running.empty() && plan_.admitted.empty();
      const int64_t held_by_others = request.cached_pages - request.cached_free_pages;
      const bool fits = request.peak_pages - held_by_others <= free_pages_ - reserved || alone;
      if (slots == 0 || budget_ == 0 || !fits) return;
      free_pages_ -= request.cached_free_pages;
      const auto [computed, taken] = TakeNewcomersRows(request, index);
      if (computed == request.computed) return;
      plan_.admitted.push_back(index);
      --slots;
      const int64_t held = request.cached_pages + taken;
      reserved += computed < request.target ? std::max<int64_t>(0, request.peak_pages - held)
                                            : input_.num_layers;
    }
  }

  struct Taken {
    int32_t computed;
    int64_t pages;
  };
  Taken TakeNewcomersRows(const RequestView& request, size_t index) {
    Taken taken{request.computed, 0};
    while (budget_ > 0 && taken.computed < request.target) {
      const int32_t count =
          FittingRows(taken.computed, ChunkEnd(request, taken.computed) - taken.computed);
      if (count == 0) break;
      taken.pages += TakeRows({true, index, taken.computed, count});
      taken.computed += count;
      if (taken.computed != request.prompt_tokens) break;  // one chunk a phase
    }
    return taken;
  }

  const PlanInput& input_;
  int32_t budget_;
  int64_t free_pages_;
  std::vector<size_t> order_;
  std::vector<Progress> progress_;
  bool waiting_for_pages_ = false;
  StepPlan plan_;
};

}  // namespace

StepPlan PlanStep(const PlanInput& input) { return Planner(input).Run(); }

}  // namespace swaa
