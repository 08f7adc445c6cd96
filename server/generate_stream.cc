// Server room: one Generate call, from its bytes to its last event.

#include "server/generate_stream.h"

#include <utility>

#include <grpcpp/impl/codegen/proto_utils.h>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "server/errors.h"
#include "server/request_validation.h"

namespace swaa::server {
namespace {

// What an event and a token cost in the buffer, without alternatives; estimates.
constexpr size_t kEventBytes = 128;

size_t BytesOf(const ScoredToken& token) {
  return sizeof(OutputToken) + token.top.size() * sizeof(token.top[0]);
}

std::string MakeRequestId() {
  thread_local absl::BitGen generator;
  return absl::StrFormat("swaa-%016x", absl::Uniform<uint64_t>(generator));
}

std::optional<bool> ThinkingSwitch(ThinkingMode mode) {
  if (mode == ThinkingMode::kDefault) return std::nullopt;
  return mode == ThinkingMode::kEnabled;
}

absl::Time DeadlineOf(const grpc::CallbackServerContext& call) {
  const std::chrono::system_clock::time_point deadline = call.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return absl::InfiniteFuture();
  return absl::FromChrono(deadline);
}

// What the engine's refusals are called.
absl::Status NameEngineError(const absl::Status& status) {
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
    stats.prompt_tokens = prompt_tokens_;
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
  SWAA_RETURN_IF_ERROR(ValidateRequestId(proto.request_id()));
  id_ = proto.request_id().empty() ? MakeRequestId() : proto.request_id();
  if (serving_->draining.load()) {
    return MakeError(absl::StatusCode::kUnavailable, "draining",
                     "the server is shutting down; send the request to another one");
  }
  SWAA_ASSIGN_OR_RETURN(ChosenRecipe recipe, serving_->recipes->Choose(proto));
  label_ = recipe.label;
  recipe_name_ = recipe.name;
  SWAA_ASSIGN_OR_RETURN(ValidRequest valid, ValidateRequest(proto, serving_->model));
  resolved_recipe_ = RecipeToProto(recipe.recipe);
  deltas_.emplace(serving_->model.tokenizer, valid.tokens_per_delta);

  GenerationRequest request;
  request.id = id_;
  request.prompt =
      TokenizeInput(valid, serving_->model, ThinkingSwitch(recipe.recipe.thinking_mode));
  prompt_tokens_ = static_cast<int32_t>(request.prompt.size());
  request.forced_output = std::move(valid.forced_output);
  request.recipe = std::move(recipe.recipe);
  request.recipe_label = label_;
  request.sampling = std::move(valid.sampling);
  request.stopping = std::move(valid.stopping);
  request.output_logprobs = valid.output_logprobs;
  request.prompt_logprobs = valid.prompt_logprobs;
  request.priority = valid.priority;
  request.cache_salt = std::move(valid.cache_salt);
  request.arrival = arrival_;
  request.deadline = deadline_;
  SWAA_RETURN_IF_ERROR(CheckLength(request));
  return SubmitToEngine(std::move(request));
}

absl::Status GenerateStream::CheckLength(const GenerationRequest& request) const {
  const size_t context = static_cast<size_t>(serving_->engine_options.max_context_tokens);
  const size_t prompt = request.prompt.size();
  if (prompt > context || prompt + request.forced_output.size() <= context) {
    return absl::OkStatus();  // a prompt that is too long is the engine's to refuse
  }
  return MakeError(absl::StatusCode::kOutOfRange, "forced_output_too_long",
                   absl::StrCat("forced_output_ids.ids: ", request.forced_output.size(),
                                " tokens after a prompt of ", prompt, " exceed the context of ",
                                context, "; shorten one of them"));
}

absl::Status GenerateStream::SubmitToEngine(GenerationRequest request) {
  {
    absl::MutexLock lock(&mutex_);
    if (client_gone_) return absl::CancelledError("the client has gone");
  }
  SWAA_RETURN_IF_ERROR(
      NameEngineError(serving_->engine->Submit(std::move(request), shared_from_this())));
  bool cancel = false;
  {
    absl::MutexLock lock(&mutex_);
    submitted_ = true;
    cancel = client_gone_;
  }
  if (cancel) serving_->engine->Cancel(id_);
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
  absl::MutexLock lock(&mutex_);
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
  absl::MutexLock lock(&mutex_);
  write_under_way_ = false;
  SchedulePump();
}

void GenerateStream::OnCancel() {
  bool cancel = false;
  {
    absl::MutexLock lock(&mutex_);
    cancel = !client_gone_ && submitted_;
    client_gone_ = true;
  }
  if (cancel) serving_->engine->Cancel(id_);
}

void GenerateStream::OnDone() {
  serving_->live_streams.Remove();
  self_.reset();
}

// ---- the pump, on a worker ----

bool GenerateStream::TakeEvents(std::deque<Event>* events) {
  events->clear();
  absl::MutexLock lock(&mutex_);
  if (write_under_way_ || !outgoing_.empty()) return false;
  events->swap(events_);
  event_bytes_ = 0;
  return !events->empty();
}

void GenerateStream::Pump() {
  for (;;) {
    bool cancel = false;
    {
      absl::MutexLock lock(&mutex_);
      cancel = overflowed_ && !overflow_cancelled_;
      overflow_cancelled_ = overflowed_;
    }
    if (cancel) serving_->engine->Cancel(id_);
    std::deque<Event> events;
    while (TakeEvents(&events)) {
      for (Event& event : events) Handle(std::move(event));
    }
    absl::MutexLock lock(&mutex_);
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
    absl::MutexLock lock(&mutex_);
    if (write_under_way_ || pump_scheduled_) return;  // another pump follows
    if (!outgoing_.empty()) {
      writing_ = std::move(outgoing_.front());
      outgoing_.pop_front();
      write = write_under_way_ = true;
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
    AcceptedMessage();
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
    serving_->metrics->OnInterTokenLatency(label_, event.at - last_tokens_);
  }
  last_tokens_ = event.at;
  std::vector<v1::GenerateResponse> messages;
  deltas_->Add(event.tokens, &messages);
  Serialize(&messages);
}

void GenerateStream::AcceptedMessage() {
  accepted_ = true;
  std::vector<v1::GenerateResponse> messages(1);
  v1::Accepted* accepted = messages[0].mutable_accepted();
  accepted->set_request_id(id_);
  accepted->set_model(serving_->model.served_name);
  accepted->set_recipe_name(recipe_name_);
  *accepted->mutable_resolved_recipe() = resolved_recipe_;
  accepted->set_prompt_tokens(static_cast<uint32_t>(prompt_tokens_));
  Serialize(&messages);
}

bool GenerateStream::EventsWereDropped() const {
  absl::MutexLock lock(&mutex_);
  return overflowed_;
}

absl::Status GenerateStream::WhyCancelled(const absl::Status& status) const {
  if (status.code() != absl::StatusCode::kCancelled) return status;
  absl::MutexLock lock(&mutex_);
  if (overflowed_) {
    return MakeError(
        absl::StatusCode::kResourceExhausted, "slow_reader",
        absl::StrCat("the stream was not read and more than ", serving_->stream_buffer_bytes,
                     " bytes waited; read faster or raise tokens_per_delta"));
  }
  if (!client_gone_) return WithReason(status, "aborted");
  if (absl::Now() >= deadline_) {
    return absl::DeadlineExceededError("the client's deadline passed");
  }
  return status;
}

void GenerateStream::HandleEnd(absl::Status status, const GenerationStats& stats,
                               std::optional<FinishReason> reason) {
  status = WhyCancelled(status);
  const absl::Time now = absl::Now();
  if (status.code() == absl::StatusCode::kResourceExhausted && !RetryPushbackMs(status)) {
    status = WithRetryPushback(status,
                               absl::ToInt64Milliseconds(serving_->drain_rate.EstimateWait(now)));
  }
  if (accepted_) serving_->drain_rate.OnRequestEnd(now);
  RequestRecord record;
  record.id = id_;
  record.recipe_label = label_;
  record.status = status;
  record.accepted = accepted_;
  record.finish_reason = reason;
  record.stats = stats;
  record.total = now - arrival_;
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
