// One Generate call: how it begins and ends, and what other threads note of it. The way to the
// engine's queue is in generate_stream_admission.cc, waiting in generate_stream_waiting.cc,
// messages in generate_stream_pump.cc.

#include "server/generate/generate_stream.h"

#include <new>
#include <utility>

#include <grpc/support/time.h>

#include "server/observation/memory_guard.h"

namespace swaa::server {
namespace {

// What a token costs in the buffer; an estimate.
size_t BytesOf(const ScoredToken& token) {
  return sizeof(OutputToken) + token.top.size() * sizeof(token.top[0]);
}

// The deadline on the steady clock, whatever clock gRPC keeps it on.
absl::Time DeadlineOf(const grpc::CallbackServerContext& call, absl::Time now) {
  const gpr_timespec deadline = call.raw_deadline();
  if (gpr_time_cmp(deadline, gpr_inf_future(deadline.clock_type)) == 0) {
    return absl::InfiniteFuture();
  }
  const gpr_timespec left = gpr_time_sub(deadline, gpr_now(deadline.clock_type));
  return now + absl::Seconds(left.tv_sec) + absl::Nanoseconds(left.tv_nsec);
}

// The first value of a key of the call's metadata; empty: there is none.
std::string MetadataOf(const grpc::CallbackServerContext& call, const char* key) {
  const auto& metadata = call.client_metadata();
  const auto found = metadata.find(key);
  return found == metadata.end() ? "" : std::string(found->second.data(), found->second.size());
}

}  // namespace

GenerateStream* GenerateStream::Start(ServingContext* serving, grpc::CallbackServerContext* call,
                                      const grpc::ByteBuffer& request) {
  std::shared_ptr<GenerateStream> stream(new GenerateStream(serving, call, request));
  serving->slow_readers->Add(stream);
  serving->live_streams.Add();
  stream->self_ = stream;
  // From here on it ends as streams end.
  try {
    if (stream->has_message_) {
      if (serving->connections != nullptr) {
        serving->connections->OnMessage(call->peer(), static_cast<int64_t>(request.Length()));
      }
      stream->Begin();
    } else {
      if (serving->connections != nullptr) serving->connections->OnAbandoned(call->peer());
      stream->RefuseWithoutMessage();
    }
  } catch (const std::bad_alloc&) {
    stream->Fail(serving->out_of_memory);
  }
  return stream.get();
}

GenerateStream::GenerateStream(ServingContext* serving, grpc::CallbackServerContext* call,
                               const grpc::ByteBuffer& request)
    : serving_(serving),
      call_(call),
      deadline_(DeadlineOf(*call, arrival_)),
      has_message_(request.Valid()),
      experiment_unit_(MetadataOf(*call, "x-swaa-experiment-unit")),
      caller_(CallerOf(serving->access, *call)),
      trace_(ParseTraceparent(MetadataOf(*call, "traceparent"))),
      request_bytes_(request) {}

// ---- what happens, noted by other threads ----

void GenerateStream::OnAccepted() {
  StopWaiting();
  Push(AcceptedEvent{}, kEventBytes);
}

void GenerateStream::OnPromptLogprobs(int32_t first_position, std::vector<ScoredToken> tokens) {
  size_t bytes = kEventBytes;
  for (const ScoredToken& token : tokens) bytes += BytesOf(token);
  Push(PromptLogprobsEvent{first_position, std::move(tokens)}, bytes);
}

void GenerateStream::OnTokens(std::vector<OutputToken> tokens) {
  size_t bytes = kEventBytes;
  for (const OutputToken& token : tokens) bytes += BytesOf(token.scored);
  Push(TokensEvent{std::move(tokens), SteadyNow()}, bytes);
}

void GenerateStream::OnFinished(const GenerationResult& result) {
  try {
    PushEnd(result);
  } catch (const std::bad_alloc&) {
    PushEnd(FailedEvent{serving_->out_of_memory, result.stats});
  }
}

void GenerateStream::OnFailed(const absl::Status& status, const GenerationStats& stats) {
  PushEnd(FailedEvent{status, stats, /*by_engine=*/true});
}

void GenerateStream::Push(Event event, size_t bytes) {
  std::lock_guard lock(mutex_);
  if (!dropped_ && event_bytes_ + bytes > serving_->stream_buffer_bytes) DropEvents();
  if (!dropped_) {
    try {
      events_.push_back(std::move(event));
      event_bytes_ += bytes;
    } catch (const std::bad_alloc&) {
      DropForMemory();
    }
  }
  // With a write under way its end wakes the pump; what was dropped does not wait for it.
  if (!write_under_way_ || dropped_) SchedulePump();
}

void GenerateStream::PushEnd(Event event) {
  std::lock_guard lock(mutex_);
  if (!end_event_.has_value()) end_event_ = std::move(event);
  if (!write_under_way_ || dropped_) SchedulePump();
}

void GenerateStream::DropEvents() {
  dropped_ = true;
  events_.clear();
}

void GenerateStream::DropForMemory() {
  out_of_memory_ = true;
  DropEvents();
  SchedulePump();
}

void GenerateStream::SchedulePump() {
  if (pump_scheduled_) return;
  pump_scheduled_ = true;
  serving_->workers->PostStreaming(shared_from_this());
}

void GenerateStream::OnWriteDone(bool ok) {
  if (!ok) OnCancel();
  std::lock_guard lock(mutex_);
  write_under_way_ = false;
  undelivered_ |= !ok;
  SchedulePump();
}

void GenerateStream::OnCancel() {
  bool cancel = false;
  {
    std::lock_guard lock(mutex_);
    if (client_gone_) return;
    cancel = submitted_;
    client_gone_ = true;
    gone_at_ = SteadyNow();
  }
  if (cancel) {
    serving_->engine->Cancel(admission_.accepted.request_id(), this);
    return;
  }
  // Where that is not done, the worker that comes to it sees that the client has gone.
  GuardMemory("leaving the queue at once",
              [this] { LeaveQueue(absl::CancelledError("the client has gone")); });
}

absl::Time GenerateStream::WaitingSince() const {
  std::lock_guard lock(mutex_);
  return write_under_way_ && !cut_off_ ? write_began_ : absl::InfiniteFuture();
}

void GenerateStream::CutOff() {
  {
    std::lock_guard lock(mutex_);
    // The reader may have come back since it was looked at.
    if (!write_under_way_ || cut_off_ || client_gone_) return;
    cut_off_ = cutting_off_ = true;
  }
  // Resets the stream: the write fails and OnCancel tells the engine. Outside the lock, as gRPC may
  // call back from inside.
  call_->TryCancel();
  std::lock_guard lock(mutex_);
  cutting_off_ = false;
  SchedulePump();
}

void GenerateStream::OnDone() {
  // Only now it is known whether the client left, or ended the call without a message.
  if (!has_message_ && record_.has_value()) {
    GuardMemory("the record of a call without a message", [this] {
      if (call_->IsCancelled()) record_->status = WhyCancelled(absl::CancelledError("gone"));
      Record(*record_);
    });
  }
  LeaveCaller();
  serving_->slow_readers->Remove(this);
  serving_->live_streams.Remove();
  self_.reset();
}

}  // namespace swaa::server
