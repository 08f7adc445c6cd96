// One Generate call, from its bytes to the engine's queue.

#include <new>
#include <utility>

#include "base/status_macros.h"
#include "server/generate/errors.h"
#include "server/generate/generate_stream.h"
#include "server/generate/request_bytes.h"
#include "server/observation/memory_guard.h"

namespace swaa::server {

absl::Status GenerateStream::NameEngineError(const absl::Status& status, const char* exhausted) {
  if (IsOutOfMemory(status)) return WithReason(status, "out_of_memory");
  if (IsDeviceLost(status)) return WithReason(status, "device_lost");
  switch (status.code()) {
    case absl::StatusCode::kResourceExhausted:
      if (IsNeverFits(status)) return WithRetryPushback(WithReason(status, "never_fits"), -1);
      return WithReason(status, exhausted);
    case absl::StatusCode::kUnavailable:
      return WithReason(status, "draining");
    case absl::StatusCode::kAlreadyExists:
      return WithReason(status, "request_id_in_use");
    case absl::StatusCode::kOutOfRange:
      return WithReason(status, "prompt_too_long");
    default:
      return status;
  }
}

void GenerateStream::Begin() {
  std::string id = PeekRequestId(request_bytes_);
  admission_.accepted.set_request_id(id);
  absl::Status status = caller_.status();
  if (status.ok()) status = serving_->usage.Arrive(**caller_, arrival_);
  std::unique_lock lock(mutex_);
  if (!status.ok()) {
    request_bytes_.Clear();
    lock.unlock();
    Fail(std::move(status));
    return;
  }
  waits_ = true;
  serving_->owners.Enter(this, (*caller_)->name);
  serving_->pending.Add(id, shared_from_this(), (*caller_)->name);
  absl::StatusOr<WorkerPool::Ticket> ticket =
      serving_->workers->PostAdmission(static_cast<int64_t>(request_bytes_.Length()),
                                       [stream = shared_from_this()] { stream->Admit(); });
  if (ticket.ok()) {
    ticket_ = *ticket;
    return;
  }
  request_bytes_.Clear();
  lock.unlock();
  Fail(ticket.status());
}

// A client that is gone is not told; which it was is known when gRPC is done with the call.
void GenerateStream::RefuseWithoutMessage() {
  Fail(MakeError(absl::StatusCode::kInvalidArgument, "malformed_request",
                 "request: the call ended without a message; send one GenerateRequest"));
}

void GenerateStream::Fail(absl::Status status) {
  serving_->pending.Remove(this);
  GenerationStats stats;
  stats.prompt_tokens = static_cast<int32_t>(admission_.accepted.prompt_tokens());
  PushEnd(FailedEvent{std::move(status), stats});
}

void GenerateStream::Admit() {
  RunAdmission([this] { return TryAdmit(); });
}

void GenerateStream::RunAdmission(absl::FunctionRef<absl::Status()> part) {
  absl::Status status;
  try {
    status = part();
  } catch (const std::bad_alloc&) {
    status = serving_->out_of_memory;
  }
  if (!status.ok()) Fail(std::move(status));
}

absl::Status GenerateStream::TryAdmit() {
  SWAA_RETURN_IF_ERROR(StillWanted());
  grpc::ByteBuffer bytes;
  {
    std::lock_guard lock(mutex_);
    bytes.Swap(&request_bytes_);
  }
  v1::GenerateRequest proto;
  SWAA_RETURN_IF_ERROR(ParseRequest(&bytes, &proto));
  GenerationRequest request;
  SWAA_RETURN_IF_ERROR(PrepareRequest(
      proto, experiment_unit_, *serving_, [this] { return StillWanted(); }, &admission_, &request));
  const ServingModel& model = serving_->model;
  deltas_.emplace(model.tokenizer, admission_.tokens_per_delta,
                  model.thinking_marks.has_value() ? &*model.thinking_marks : nullptr,
                  admission_.begins_thinking);
  request.arrival = OnEngineClock(arrival_);
  request.deadline = OnEngineClock(deadline_);
  request.cache_salt = (*caller_)->CacheSalt(request.cache_salt);
  return SubmitInTurn(std::move(request));
}

absl::Status GenerateStream::SubmitToEngine() {
  SWAA_RETURN_IF_ERROR(StillWanted());
  GenerationRequest request;
  {
    std::lock_guard lock(mutex_);
    request = *std::move(in_turn_);
    in_turn_.reset();
  }
  const std::string id = request.id;
  const auto prompt_tokens = static_cast<int64_t>(request.prompt->size());
  SWAA_RETURN_IF_ERROR(NameEngineError(
      serving_->engine->Submit(std::move(request), shared_from_this()), "queue_full"));
  // The engine has it: it ends through the engine.
  const bool noted = GuardMemory("taking a request", [&] {
    serving_->usage.Spend(**caller_, prompt_tokens, SteadyNow());
    serving_->owners.Take(this, id);
  });
  bool cancel = false;
  bool abort = false;
  {
    std::lock_guard lock(mutex_);
    submitted_ = true;
    if (!noted) DropForMemory();
    cancel = client_gone_;
    abort = aborted_;
  }
  if (cancel) serving_->engine->Cancel(id, this);
  if (abort) serving_->engine->Abort(id);
  serving_->pending.Remove(this);
  return absl::OkStatus();
}

}  // namespace swaa::server
