// The pump of one Generate call, on a worker: from the engine's events to messages and the status.

#include <algorithm>
#include <new>
#include <utility>

#include <grpcpp/impl/codegen/proto_utils.h>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "engine/recipe/visibility.h"
#include "server/generate/errors.h"
#include "server/generate/generate_stream.h"
#include "server/observation/memory_guard.h"

namespace swaa::server {
namespace {

// A client that sees its deadline first resets the stream: its clock began earlier by the way here,
// and what it writes into grpc-timeout is rounded up by up to a hundredth.
absl::Duration DeadlineGranularity(absl::Duration timeout) {
  return std::min(timeout / 2, absl::Milliseconds(100) + timeout / 100);
}

}  // namespace

bool GenerateStream::TakeEvents(std::deque<Event>* events) {
  events->clear();
  std::lock_guard lock(mutex_);
  if (write_under_way_ || !outgoing_.empty()) return false;
  events->swap(events_);
  event_bytes_ = 0;
  return !events->empty();
}

std::optional<GenerateStream::Event> GenerateStream::TakeEnd() {
  std::lock_guard lock(mutex_);
  if (write_under_way_ || !outgoing_.empty() || !events_.empty()) return std::nullopt;
  return std::exchange(end_event_, std::nullopt);
}

void GenerateStream::RunOnWorker() {
  try {
    PumpEvents();
  } catch (const std::bad_alloc&) {
    GiveUp();
  }
  WriteOrFinish();
}

void GenerateStream::GiveUp() {
  outgoing_.clear();
  {
    std::lock_guard lock(mutex_);
    DropEvents();
    pump_scheduled_ = false;
  }
  if (end_.has_value()) {
    if (!end_->ok()) return;
    end_ = serving_->out_of_memory;  // what told of the good end got lost
    record_->status = *end_;
    record_->finish_reason.reset();
    return;
  }
  serving_->engine->Cancel(admission_.accepted.request_id(), this);
  GuardMemory("the record of a request",
              [this] { HandleEnd(serving_->out_of_memory, {}, std::nullopt); });
  if (!end_.has_value()) end_ = serving_->out_of_memory;
}

void GenerateStream::PumpEvents() {
  for (;;) {
    bool turn_came = false;
    bool cancel = false;
    {
      std::lock_guard lock(mutex_);
      turn_came = std::exchange(turn_came_, false);
      cancel = dropped_ && !drop_cancelled_;
      drop_cancelled_ = dropped_;
    }
    if (turn_came) RunAdmission([this] { return SubmitToEngine(); });
    if (cancel) serving_->engine->Cancel(admission_.accepted.request_id(), this);
    std::deque<Event> events;
    while (TakeEvents(&events)) {
      for (Event& event : events) Handle(std::move(event));
    }
    if (std::optional<Event> end = TakeEnd()) Handle(*std::move(end));
    std::lock_guard lock(mutex_);
    if (client_gone_ || dropped_) {  // nobody reads it
      undelivered_ |= !outgoing_.empty();
      outgoing_.clear();
    }
    const bool idle = !write_under_way_ && outgoing_.empty();
    const bool more = !events_.empty() || end_event_.has_value();
    if (turn_came_ || (dropped_ && !drop_cancelled_) || (idle && more)) continue;
    pump_scheduled_ = false;
    break;
  }
}

void GenerateStream::WriteOrFinish() {
  bool write = false;
  bool finish = false;
  {
    std::lock_guard lock(mutex_);
    if (write_under_way_ || pump_scheduled_ || cutting_off_) return;  // another pump follows
    if (!outgoing_.empty()) {
      writing_.Swap(&outgoing_.front());
      outgoing_.pop_front();
      write = write_under_way_ = true;
      write_began_ = SteadyNow();
    } else if (end_.has_value() && !finished_) {
      finish = finished_ = true;
    }
  }
  // Outside the lock: gRPC may call back from inside.
  if (write) StartWrite(&writing_);
  if (finish) FinishCall();
}

void GenerateStream::FinishCall() {
  // Before the client can see the end, and come again.
  LeaveCaller();
  if (has_message_ && record_.has_value()) {
    GuardMemory("the record of a request", [this] { RecordEnd(); });
  }
  grpc::Status status(static_cast<grpc::StatusCode>(end_->code()), "");
  GuardMemory("what a status says", [&] {
    AddErrorTrailers(*end_, call_);
    status = ToGrpcStatus(*end_);
  });
  Finish(std::move(status));
}

// An answer that is complete and did not reach its client has not ended well.
void GenerateStream::RecordEnd() {
  bool undelivered = false;
  {
    std::lock_guard lock(mutex_);
    undelivered = undelivered_;
  }
  if (record_->status.ok() && undelivered) {
    record_->finish_reason.reset();
    record_->status =
        WhyCancelled(absl::CancelledError("the client left before it had the whole answer"));
  }
  Record(*record_);
}

void GenerateStream::Handle(Event event) {
  if (end_.has_value()) return;  // given up
  std::vector<v1::GenerateResponse> messages;
  if (std::holds_alternative<AcceptedEvent>(event)) {
    accepted_ = in_drain_rate_ = true;
    serving_->drain_rate.OnRequestBegin(SteadyNow());
    *messages.emplace_back().mutable_accepted() = admission_.accepted;
  } else if (auto* prompt = std::get_if<PromptLogprobsEvent>(&event)) {
    AppendPromptLogprobs(prompt->first_position, prompt->tokens, &messages);
  } else if (auto* tokens = std::get_if<TokensEvent>(&event)) {
    HandleTokens(*tokens);
  } else if (auto* result = std::get_if<GenerationResult>(&event)) {
    HandleResult(*result, &messages);
  } else if (auto* failed = std::get_if<FailedEvent>(&event)) {
    HandleFailure(*failed);
  }
  Serialize(&messages);
}

void GenerateStream::HandleResult(const GenerationResult& result,
                                  std::vector<v1::GenerateResponse>* messages) {
  if (EventsWereDropped()) {
    HandleEnd(absl::CancelledError("events were dropped"), result.stats, std::nullopt);
    return;
  }
  deltas_->Finish(/*show_rest=*/result.reason != FinishReason::kStop, messages);
  if (result.reason == FinishReason::kCancelled && serving_->grace_over.load()) {
    HandleEnd(MakeError(absl::StatusCode::kUnavailable, "draining",
                        "the server shut down before the answer was complete; send the request to "
                        "another one, with the tokens so far as forced_output_ids"),
              result.stats, std::nullopt);
    return;
  }
  v1::GenerateResponse& response =
      messages->emplace_back(FinishedEvent(result, deltas_->reasoning_tokens()));
  if (admission_.experiment.has_value()) {
    const Experiments::Finish finish = serving_->experiments->FinishOf(
        *admission_.experiment, admission_.accepted.request_id(), result.stats);
    response.mutable_finished()->mutable_stats()->set_triggered(finish.triggered);
    response.mutable_finished()->set_outcome_token(finish.outcome_token);
  }
  HandleEnd(absl::OkStatus(), result.stats, result.reason);
  if (result.reason != FinishReason::kCancelled) OfferShadow(result);
}

void GenerateStream::HandleTokens(const TokensEvent& event) {
  if (last_tokens_ != absl::InfinitePast()) {
    serving_->metrics->OnInterTokenLatency(admission_.recipe_label, event.at - last_tokens_);
  }
  last_tokens_ = event.at;
  CountTokens(event);
  if (admission_.shadow_prompt != nullptr) {
    for (const OutputToken& token : event.tokens) shadow_answer_.push_back(token.scored.token);
  }
  std::vector<v1::GenerateResponse> messages;
  deltas_->Add(event.tokens, &messages);
  Serialize(&messages);
}

void GenerateStream::CountTokens(const TokensEvent& event) {
  const int64_t prompt = admission_.accepted.prompt_tokens();
  if (!counted_.first_token) {
    counted_.first_token = true;
    serving_->metrics->OnFirstToken(admission_.recipe_label, prompt, event.at - arrival_);
  }
  // The first token comes of the prompt's last position; how much of the prompt the cache had is
  // known at the end.
  const int64_t first = prompt + std::max<int64_t>(counted_.tokens, 1) - 1;
  LiveCounts added{.tokens = static_cast<int64_t>(event.tokens.size())};
  const int64_t last = prompt + counted_.tokens + added.tokens - 1;
  const Recipe& recipe = admission_.recipe;
  added.attended_keys = AttendedKeys(recipe, prompt, first, last);
  const kernels::KeySpan everything = SpanOf(Recipe(), 0, Phase::kDecode);
  added.full_attention_attended_keys =
      recipe.num_layers() * SumVisibleKeys(everything, first, last);
  serving_->metrics->OnTokens(admission_.recipe_label, added);
  serving_->usage.Spend(**caller_, added.tokens, event.at);
  counted_.tokens += added.tokens;
  counted_.attended_keys += added.attended_keys;
  counted_.full_attention_attended_keys += added.full_attention_attended_keys;
}

bool GenerateStream::EventsWereDropped() const {
  std::lock_guard lock(mutex_);
  return dropped_ || cut_off_;
}

absl::Status GenerateStream::WhyCancelled(const absl::Status& status) const {
  if (status.code() != absl::StatusCode::kCancelled) return status;
  std::lock_guard lock(mutex_);
  if (out_of_memory_) return serving_->out_of_memory;
  if (dropped_) {
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
  if (gone_at_ >= deadline_ - DeadlineGranularity(deadline_ - arrival_)) {
    return absl::DeadlineExceededError("the client's deadline passed");
  }
  return status;
}

void GenerateStream::HandleFailure(const FailedEvent& event) {
  HandleEnd(event.by_engine ? NameEngineError(event.status, "device_out_of_memory") : event.status,
            event.stats, std::nullopt);
}

void GenerateStream::HandleEnd(absl::Status status, const GenerationStats& stats,
                               std::optional<FinishReason> reason) {
  const absl::Time now = SteadyNow();
  if (std::exchange(in_drain_rate_, false)) serving_->drain_rate.OnRequestEnd(now);
  status = WhyCancelled(status);
  if (status.code() == absl::StatusCode::kResourceExhausted && !RetryPushbackMs(status)) {
    status =
        WithRetryPushback(status, absl::ToInt64Milliseconds(serving_->drain_rate.NextWait(now)));
  }
  RequestRecord record;
  record.id = admission_.accepted.request_id();
  if (caller_.ok()) record.caller = (*caller_)->name;
  record.trace = trace_;
  record.recipe_label = admission_.recipe_label;
  record.status = status;
  record.accepted = accepted_;
  record.finish_reason = reason;
  record.stats = stats;
  record.total = now - arrival_;
  record.counted = counted_;
  end_ = std::move(status);
  record_ = std::move(record);
}

void GenerateStream::Record(const RequestRecord& record) {
  serving_->metrics->OnRequestEnd(record);
  serving_->experiments->OnRequestEnd(
      admission_.experiment.has_value() ? &*admission_.experiment : nullptr, record);
  LogRequest(record, serving_->log_format);
}

void GenerateStream::OfferShadow(const GenerationResult& result) {
  if (admission_.shadow_prompt == nullptr || shadow_answer_.empty()) return;
  serving_->shadows->Offer({.request_id = admission_.accepted.request_id(),
                            .prompt = std::move(admission_.shadow_prompt),
                            .answer = std::move(shadow_answer_),
                            .recipe = admission_.recipe,
                            .lora_name = admission_.accepted.resolved_recipe().lora_name(),
                            .lora_load = admission_.adapter_load,
                            .recipe_label = admission_.recipe_label,
                            .tag = admission_.experiment,
                            .stats = result.stats});
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
