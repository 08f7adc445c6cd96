// One Generate call, from its bytes to its last event.

#include "server/generate/generate_stream.h"

#include <chrono>
#include <utility>

#include <grpcpp/impl/codegen/proto_utils.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "server/generate/errors.h"

namespace swaa::server {
namespace {

// What an event and a token cost in the buffer, without alternatives; estimates.
constexpr size_t kEventBytes = 128;

size_t BytesOf(const ScoredToken& token) {
  return sizeof(OutputToken) + token.top.size() * sizeof(token.top[0]);
}

// On the engine's clock. Years away is never: the sum must not overflow.
SteadyTime DeadlineOf(const grpc::CallbackServerContext& call) {
  const auto now = std::chrono::system_clock::now();
  constexpr auto kNever = std::chrono::hours(24 * 365 * 10);
  if (call.deadline() > now + kNever) return SteadyTime::max();
  return SteadyClock::now() +
         std::chrono::duration_cast<SteadyClock::duration>(call.deadline() - now);
}

// What the engine's refusals are called.
absl::Status NameEngineError(const absl::Status& status) {
  if (IsDeviceLost(status)) return WithReason(status, "device_lost");
  switch (status.code()) {
    case absl::StatusCode::kResourceExhausted:
      if (IsNeverFits(status)) return WithRetryPushback(WithReason(status, "never_fits"), -1);
      return WithReason(status, "queue_full");
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

}  // namespace

GenerateStream* GenerateStream::Start(ServingContext* serving, grpc::CallbackServerContext* call,
                                      const grpc::ByteBuffer& request) {
  std::shared_ptr<GenerateStream> stream(new GenerateStream(serving, call, request));
  stream->self_ = stream;
  serving->live_streams.Add();
  serving->slow_readers->Add(stream);
  if (!serving->workers->TryPostAdmission([stream] { stream->Admit(); })) {
    stream->Push(FailedEvent{MakeError(absl::StatusCode::kResourceExhausted, "queue_full",
                                       "too many requests wait to be read; try again later"),
                             {}},
                 kEventBytes);
  }
  return stream.get();
}

GenerateStream::GenerateStream(ServingContext* serving, grpc::CallbackServerContext* call,
                               const grpc::ByteBuffer& request)
    : serving_(serving), call_(call), deadline_(DeadlineOf(*call)), request_bytes_(request) {}

// ---- admission, on a worker ----

void GenerateStream::Admit() {
  absl::Status status = TryAdmit();
  if (!status.ok()) {
    GenerationStats stats;
    stats.prompt_tokens = static_cast<int32_t>(admission_.accepted.prompt_tokens());
    Push(FailedEvent{std::move(status), stats}, kEventBytes);
  }
}

absl::Status GenerateStream::TryAdmit() {
  v1::GenerateRequest proto;
  const grpc::Status parsed =
      grpc::SerializationTraits<v1::GenerateRequest>::Deserialize(&request_bytes_, &proto);
  request_bytes_.Clear();
  if (!parsed.ok()) {
    return MakeError(
        absl::StatusCode::kInvalidArgument, "malformed_request",
        "request: the bytes are no swaa.v1.GenerateRequest, or a string in them is not "
        "UTF-8; send a message serialised from the published proto");
  }
  GenerationRequest request;
  request.arrival = arrival_;
  request.deadline = deadline_;
  SWAA_RETURN_IF_ERROR(PrepareRequest(proto, *serving_, &admission_, &request));
  deltas_.emplace(serving_->model.tokenizer, admission_.tokens_per_delta);
  return SubmitToEngine(std::move(request));
}

absl::Status GenerateStream::SubmitToEngine(GenerationRequest request) {
  {
    std::lock_guard lock(mutex_);
    if (client_gone_) return absl::CancelledError("the client has gone");
  }
  SWAA_RETURN_IF_ERROR(
      NameEngineError(serving_->engine->Submit(std::move(request), shared_from_this())));
  bool cancel = false;
  {
    std::lock_guard lock(mutex_);
    submitted_ = true;
    cancel = client_gone_;
  }
  if (cancel) serving_->engine->Cancel(admission_.accepted.request_id(), this);
  return absl::OkStatus();
}

// ---- what happens, noted by other threads ----

void GenerateStream::OnAccepted() { Push(AcceptedEvent{}, kEventBytes); }

void GenerateStream::OnPromptLogprobs(int32_t first_position, std::vector<ScoredToken> tokens) {
  size_t bytes = kEventBytes;
  for (const ScoredToken& token : tokens) bytes += BytesOf(token);
  Push(PromptLogprobsEvent{first_position, std::move(tokens)}, bytes);
}

void GenerateStream::OnTokens(std::vector<OutputToken> tokens) {
  size_t bytes = kEventBytes;
  for (const OutputToken& token : tokens) bytes += BytesOf(token.scored);
  Push(TokensEvent{std::move(tokens), absl::Now()}, bytes);
}

void GenerateStream::OnFinished(const GenerationResult& result) { Push(result, kEventBytes); }

void GenerateStream::OnFailed(const absl::Status& status, const GenerationStats& stats) {
  Push(FailedEvent{NameEngineError(status), stats}, kEventBytes);
}

void GenerateStream::Push(Event event, size_t bytes) {
  std::lock_guard lock(mutex_);
  const bool last =
      std::holds_alternative<GenerationResult>(event) || std::holds_alternative<FailedEvent>(event);
  if (!last && !overflowed_ && event_bytes_ + bytes > serving_->stream_buffer_bytes) {
    overflowed_ = true;
    events_.clear();
  }
  if (last || !overflowed_) {
    events_.push_back(std::move(event));
    event_bytes_ += bytes;
  }
  // With a write under way its end wakes the pump; an overflow does not wait for it.
  if (!write_under_way_ || overflowed_) SchedulePump();
}

void GenerateStream::SchedulePump() {
  if (pump_scheduled_) return;
  pump_scheduled_ = true;
  serving_->workers->PostStreaming([stream = shared_from_this()] { stream->Pump(); });
}

void GenerateStream::OnWriteDone(bool ok) {
  if (!ok) OnCancel();
  std::lock_guard lock(mutex_);
  write_under_way_ = false;
  SchedulePump();
}

void GenerateStream::OnCancel() {
  bool cancel = false;
  {
    std::lock_guard lock(mutex_);
    cancel = !client_gone_ && submitted_;
    client_gone_ = true;
  }
  if (cancel) serving_->engine->Cancel(admission_.accepted.request_id(), this);
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
  serving_->slow_readers->Remove(this);
  serving_->live_streams.Remove();
  self_.reset();
}

// ---- the pump, on a worker ----

bool GenerateStream::TakeEvents(std::deque<Event>* events) {
  events->clear();
  std::lock_guard lock(mutex_);
  if (write_under_way_ || !outgoing_.empty()) return false;
  events->swap(events_);
  event_bytes_ = 0;
  return !events->empty();
}

void GenerateStream::Pump() {
  for (;;) {
    bool cancel = false;
    {
      std::lock_guard lock(mutex_);
      cancel = overflowed_ && !overflow_cancelled_;
      overflow_cancelled_ = overflowed_;
    }
    if (cancel) serving_->engine->Cancel(admission_.accepted.request_id(), this);
    std::deque<Event> events;
    while (TakeEvents(&events)) {
      for (Event& event : events) Handle(std::move(event));
    }
    std::lock_guard lock(mutex_);
    if (client_gone_ || overflowed_) outgoing_.clear();  // nobody reads it
    const bool idle = !write_under_way_ && outgoing_.empty();
    if ((overflowed_ && !overflow_cancelled_) || (idle && !events_.empty())) continue;
    pump_scheduled_ = false;
    break;
  }
  WriteOrFinish();
}

void GenerateStream::WriteOrFinish() {
  bool write = false;
  bool finish = false;
  {
    std::lock_guard lock(mutex_);
    if (write_under_way_ || pump_scheduled_ || cutting_off_) return;  // another pump follows
    if (!outgoing_.empty()) {
      writing_ = std::move(outgoing_.front());
      outgoing_.pop_front();
      write = write_under_way_ = true;
      write_began_ = absl::Now();
    } else if (end_.has_value() && !finished_) {
      finish = finished_ = true;
    }
  }
  // Outside the lock: gRPC may call back from inside.
  if (write) StartWrite(&writing_);
  if (finish) FinishCall();
}

void GenerateStream::FinishCall() {
  AddErrorTrailers(*end_, call_);
  Finish(ToGrpcStatus(*end_));
}

void GenerateStream::Handle(Event event) {
  std::vector<v1::GenerateResponse> messages;
  if (std::holds_alternative<AcceptedEvent>(event)) {
    accepted_ = true;
    serving_->drain_rate.OnRequestBegin(absl::Now());
    *messages.emplace_back().mutable_accepted() = admission_.accepted;
  } else if (auto* prompt = std::get_if<PromptLogprobsEvent>(&event)) {
    AppendPromptLogprobs(prompt->first_position, prompt->tokens, &messages);
  } else if (auto* tokens = std::get_if<TokensEvent>(&event)) {
    HandleTokens(*tokens);
  } else if (auto* result = std::get_if<GenerationResult>(&event)) {
    if (EventsWereDropped()) {
      HandleEnd(absl::CancelledError("events were dropped"), result->stats, std::nullopt);
      return;
    }
    deltas_->Finish(/*show_rest=*/result->reason != FinishReason::kStop, &messages);
    messages.push_back(FinishedEvent(*result));
    HandleEnd(absl::OkStatus(), result->stats, result->reason);
  } else if (auto* failed = std::get_if<FailedEvent>(&event)) {
    HandleEnd(failed->status, failed->stats, std::nullopt);
  }
  Serialize(&messages);
}

void GenerateStream::HandleTokens(const TokensEvent& event) {
  if (last_tokens_ != absl::InfinitePast()) {
    serving_->metrics->OnInterTokenLatency(admission_.recipe_label, event.at - last_tokens_);
  }
  last_tokens_ = event.at;
  std::vector<v1::GenerateResponse> messages;
  deltas_->Add(event.tokens, &messages);
  Serialize(&messages);
}

bool GenerateStream::EventsWereDropped() const {
  std::lock_guard lock(mutex_);
  return overflowed_ || cut_off_;
}

absl::Status GenerateStream::WhyCancelled(const absl::Status& status) const {
  if (status.code() != absl::StatusCode::kCancelled) return status;
  std::lock_guard lock(mutex_);
  if (overflowed_) {
    return MakeError(
        absl::StatusCode::kResourceExhausted, "slow_reader",
        absl::StrCat("the stream was not read and more than ", serving_->stream_buffer_bytes,
                     " bytes waited; read faster or raise tokens_per_delta"));
  }
  if (cut_off_) {
    return MakeError(
        absl::StatusCode::kResourceExhausted, "slow_reader",
        absl::StrCat("the stream was not read for ",
                     absl::FormatDuration(serving_->slow_readers->timeout()), " and was cut off"));
  }
  if (!client_gone_) return WithReason(status, "aborted");
  if (SteadyClock::now() >= deadline_) {
    return absl::DeadlineExceededError("the client's deadline passed");
  }
  return status;
}

void GenerateStream::HandleEnd(absl::Status status, const GenerationStats& stats,
                               std::optional<FinishReason> reason) {
  status = WhyCancelled(status);
  const absl::Time now = absl::Now();
  if (status.code() == absl::StatusCode::kResourceExhausted && !RetryPushbackMs(status)) {
    status =
        WithRetryPushback(status, absl::ToInt64Milliseconds(serving_->drain_rate.NextWait(now)));
  }
  if (accepted_) serving_->drain_rate.OnRequestEnd(now);
  RequestRecord record;
  record.id = admission_.accepted.request_id();
  record.recipe_label = admission_.recipe_label;
  record.status = status;
  record.accepted = accepted_;
  record.finish_reason = reason;
  record.stats = stats;
  record.total = absl::FromChrono(SteadyClock::now() - arrival_);
  serving_->metrics->OnRequestEnd(record);
  LogRequest(record, serving_->log_format);
  end_ = std::move(status);
}

void GenerateStream::Serialize(std::vector<v1::GenerateResponse>* messages) {
  for (const v1::GenerateResponse& message : *messages) {
    bool own_buffer = false;
    grpc::ByteBuffer buffer;
    const grpc::Status status =
        grpc::SerializationTraits<v1::GenerateResponse>::Serialize(message, &buffer, &own_buffer);
    SWAA_CHECK(status.ok()) << status.error_message();
    outgoing_.push_back(std::move(buffer));
  }
}

}  // namespace swaa::server
