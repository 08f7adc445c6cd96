// Requests from Submit to their end.

#include "engine/live_requests.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace swaa {
namespace {

bool IsShadow(const LiveRequest& live) { return live.request_class == RequestClass::kShadow; }

}  // namespace

absl::Status LiveRequests::Enter(GenerationRequest request, std::shared_ptr<GenerationSink> sink,
                                 int32_t max_output) {
  {
    std::lock_guard lock(mutex_);
    if (!refusal_.ok()) return refusal_;
    if (draining_ || stopping_) return draining_status_;
    const bool shadow = request.request_class == RequestClass::kShadow;
    if (!shadow && waiting_ >= max_queued_) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the queue holds its most, ", max_queued_,
                       " requests; try again later or raise --max-queued-requests"));
    }
    if (live_.contains(request.id)) {
      return absl::AlreadyExistsError(
          absl::StrCat("request_id: '", request.id, "' belongs to a live request; choose another"));
    }
    auto live = std::make_shared<LiveRequest>(LiveRequest{
        .id = request.id, .sink = std::move(sink), .request_class = request.request_class});
    // All that takes memory, before anything has changed.
    if (submissions_.size() == submissions_.capacity()) {
      submissions_.reserve(2 * submissions_.size() + 1);
    }
    live_.emplace(live->id, live);
    submissions_.push_back({std::move(live), std::move(request), max_output});
    ++(shadow ? live_shadows_ : waiting_);
  }
  wake_.notify_all();
  return absl::OkStatus();
}

// Puts a request on the list of those that were asked for something.
LiveRequest* LiveRequests::Ask(const std::shared_ptr<LiveRequest>& live) {
  if (!live->cancel && !live->abort) live->next_asked = std::exchange(asked_, live);
  return live.get();
}

void LiveRequests::Cancel(const std::string& id, const GenerationSink* sink) {
  {
    std::lock_guard lock(mutex_);
    const auto found = live_.find(id);
    if (found == live_.end() || found->second->sink.get() != sink) return;
    Ask(found->second)->cancel = true;
  }
  wake_.notify_all();
}

bool LiveRequests::Abort(const std::string& id) {
  {
    std::lock_guard lock(mutex_);
    const auto found = live_.find(id);
    if (found == live_.end() || IsShadow(*found->second)) return false;
    Ask(found->second)->abort = true;
  }
  wake_.notify_all();
  return true;
}

int32_t LiveRequests::AbortAll() {
  int32_t serving = 0;
  {
    std::lock_guard lock(mutex_);
    for (const auto& [id, live] : live_) Ask(live)->abort = true;
    serving = static_cast<int32_t>(live_.size()) - live_shadows_;
  }
  wake_.notify_all();
  return serving;
}

void LiveRequests::StartDrain() {
  {
    std::lock_guard lock(mutex_);
    draining_ = drain_asked_ = true;
  }
  wake_.notify_all();
}

bool LiveRequests::AwaitIdle(absl::Duration timeout) {
  std::unique_lock lock(mutex_);
  return ended_.wait_for(lock, absl::ToChronoNanoseconds(timeout),
                         [&] { return live_.empty() && unpublished_ == 0; });
}

LoadSnapshot LiveRequests::Load() const {
  std::lock_guard lock(mutex_);
  LoadSnapshot snapshot = load_;
  snapshot.totals.queued = waiting_;  // those that were not taken yet, too
  return snapshot;
}

void LiveRequests::Stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
}

bool LiveRequests::Await(absl::FunctionRef<bool()> busy) {
  std::unique_lock lock(mutex_);
  wake_.wait(lock, [&] { return stopping_ || posted() || busy(); });
  return !stopping_ || posted() || busy();
}

LiveRequests::Posted LiveRequests::Take() {
  std::lock_guard lock(mutex_);
  return {.submissions = std::exchange(submissions_, {}),
          .asked = std::exchange(asked_, nullptr),
          .drain = std::exchange(drain_asked_, false)};
}

LiveRequests::Answer LiveRequests::TakeAsked(LiveRequest* live) {
  std::lock_guard lock(mutex_);
  live->abort = false;
  return {.cancel = std::exchange(live->cancel, false),
          .next = std::exchange(live->next_asked, nullptr)};
}

void LiveRequests::Leave(const std::string& id, bool runs) {
  std::lock_guard lock(mutex_);
  const auto found = live_.find(id);
  SWAA_CHECK(found != live_.end()) << "request " << id << " is not live";
  if (!runs && !IsShadow(*found->second)) --waiting_;
  Erase(found);
}

void LiveRequests::Erase(ById::iterator live) {
  if (IsShadow(*live->second)) --live_shadows_;
  live_.erase(live);
  ++unpublished_;
}

void LiveRequests::Publish(LoadSnapshot load, int64_t ended) {
  std::lock_guard lock(mutex_);
  unpublished_ -= ended;
  waiting_ = static_cast<int32_t>(live_.size()) - live_shadows_ - load.totals.running;
  load_ = std::move(load);
  if (live_.empty() && unpublished_ == 0) ended_.notify_all();
}

void LiveRequests::Refuse(const absl::Status& status) {
  std::lock_guard lock(mutex_);
  refusal_ = status;
}

std::shared_ptr<LiveRequest> LiveRequests::LeaveAny() {
  std::lock_guard lock(mutex_);
  if (live_.empty()) return nullptr;
  std::shared_ptr<LiveRequest> live = live_.begin()->second;
  Erase(live_.begin());
  return live;
}

void LiveRequests::PublishNothing() {
  std::lock_guard lock(mutex_);
  submissions_.clear();
  unpublished_ = 0;
  waiting_ = 0;
  load_ = {};
  ended_.notify_all();
}

}  // namespace swaa
