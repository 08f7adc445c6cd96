// One Generate call while it waits: to be read, for its caller's turn, for the engine; and how it
// leaves before it is its turn.

#include <utility>

#include "server/generate/errors.h"
#include "server/generate/generate_stream.h"

namespace swaa::server {

absl::Status GenerateStream::StillWanted() const {
  {
    std::lock_guard lock(mutex_);
    if (client_gone_) return absl::CancelledError("the client has gone");
    if (aborted_) return absl::CancelledError("the request was aborted");
  }
  if (SteadyNow() >= deadline_) {
    return absl::DeadlineExceededError("the client's deadline passed while the request waited");
  }
  if (serving_->draining.load()) {
    return MakeError(absl::StatusCode::kUnavailable, "draining",
                     "the server is shutting down; send the request to another one");
  }
  return absl::OkStatus();
}

absl::Status GenerateStream::SubmitInTurn(GenerationRequest request) {
  {
    std::lock_guard lock(mutex_);
    in_turn_ = std::move(request);
  }
  if (serving_->usage.TakePlace(**caller_, shared_from_this())) {
    {
      std::lock_guard lock(mutex_);
      has_place_ = true;
    }
    return SubmitToEngine();
  }
  // Who left, or was aborted, a moment ago found nothing to take out of the queue.
  const absl::Status wanted = StillWanted();
  if (!wanted.ok() && serving_->usage.LeaveTurn(**caller_, this)) return wanted;
  return absl::OkStatus();
}

void GenerateStream::OnTurn() {
  std::lock_guard lock(mutex_);
  has_place_ = turn_came_ = true;
  SchedulePump();
}

bool GenerateStream::LeaveQueue(absl::Status status) {
  {
    std::lock_guard lock(mutex_);
    if (!has_message_ || !caller_.ok()) return false;
    if (!serving_->workers->CancelAdmission(ticket_) &&
        !serving_->usage.LeaveTurn(**caller_, this)) {
      return false;
    }
    request_bytes_.Clear();
    in_turn_.reset();
  }
  Fail(std::move(status));
  return true;
}

bool GenerateStream::AbortAdmission() {
  {
    std::lock_guard lock(mutex_);
    if (submitted_ || client_gone_ || aborted_) return false;
    aborted_ = true;
  }
  // Else a worker is at it and will ask.
  LeaveQueue(absl::CancelledError("the request was aborted"));
  return true;
}

void GenerateStream::StopWaiting() {
  bool waited = false;
  {
    std::lock_guard lock(mutex_);
    waited = std::exchange(waits_, false);
  }
  if (waited) serving_->usage.StopWaiting(**caller_);
}

void GenerateStream::LeaveCaller() {
  serving_->owners.Leave(this);
  StopWaiting();
  bool had_place = false;
  {
    std::lock_guard lock(mutex_);
    had_place = std::exchange(has_place_, false);
  }
  if (had_place) serving_->usage.LeavePlace(**caller_);
}

}  // namespace swaa::server
