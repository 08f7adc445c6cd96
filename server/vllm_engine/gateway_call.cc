// One Generate call of a gateway.

#include "server/vllm_engine/gateway_call.h"

#include <utility>

#include <grpcpp/impl/codegen/proto_utils.h>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "server/generate/errors.h"
#include "server/generate/request_bytes.h"
#include "server/observation/memory_guard.h"
#include "server/vllm_engine/call_authority.h"
#include "server/vllm_engine/gateway_status.h"

namespace swaa::server {
namespace {

std::string MetadataValue(const grpc::CallbackServerContext& call, const char* key) {
  const auto found = call.client_metadata().find(key);
  if (found == call.client_metadata().end()) return "";
  return std::string(found->second.data(), found->second.size());
}

// The metadata of swaa.v1, else a trace's.
std::string UnitOf(const grpc::CallbackServerContext& call) {
  const std::string unit = MetadataValue(call, "x-swaa-experiment-unit");
  return unit.empty() ? UnitOfTraceState(MetadataValue(call, "tracestate")) : unit;
}

}  // namespace

class GatewayCall::Sample final : public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  Sample(GatewayCall* call, v1::GenerateRequest request, SampleAnswer::Options options)
      : call_(call), request_(std::move(request)), answer_(std::move(options)) {
    context_.set_deadline(call->call_->raw_deadline());
    // Whoever calls the gateway's service calls the inner one, under their limits.
    ForwardMetadata("authorization");
    ForwardMetadata("traceparent");
  }

  void Begin() {
    call_->gateway_->inference->async()->Generate(&context_, &request_, this);
    StartRead(&event_);
    StartCall();
  }
  void ReadOn() { StartRead(&event_); }
  void Cancel() { context_.TryCancel(); }

  const std::string& id() const { return request_.request_id(); }
  const grpc::ClientContext& context() const { return context_; }

 private:
  void ForwardMetadata(const char* key) {
    const auto [first, last] = call_->call_->client_metadata().equal_range(key);
    for (auto it = first; it != last; ++it) {
      context_.AddMetadata(key, std::string(it->second.data(), it->second.size()));
    }
  }
  void OnReadDone(bool ok) override {
    if (!ok) return;  // OnDone says why
    if (!GuardMemory("an answer of a gateway's call", [this] { TakeEvent(); })) {
      call_->FailForMemory();
    }
  }
  void TakeEvent() {
    if (event_.has_accepted()) call_->OnAccepted();
    const auto message = answer_.Take(event_);
    if (message.has_value()) {
      call_->OnMessage(this, *message);
    } else {
      ReadOn();
    }
  }
  void OnDone(const grpc::Status& status) override { call_->OnSampleDone(*this, status); }

  GatewayCall* const call_;  // owns this
  grpc::ClientContext context_;
  const v1::GenerateRequest request_;
  v1::GenerateResponse event_;
  SampleAnswer answer_;
};

GatewayCall* GatewayCall::Start(GatewayContext* gateway, grpc::CallbackServerContext* call,
                                const grpc::ByteBuffer& request) {
  std::shared_ptr<GatewayCall> started(new GatewayCall(gateway, call, request));
  started->self_ = started;
  ServingContext* serving = gateway->serving;
  serving->live_streams.Add();
  // From here on it ends as calls end.
  if (!GuardMemory("a gateway's call", [&] { started->Queue(request); })) {
    started->Refuse(serving->out_of_memory);
  }
  return started.get();
}

void GatewayCall::Queue(const grpc::ByteBuffer& request) {
  ServingContext* const serving = gateway_->serving;
  serving->slow_readers->Add(shared_from_this());
  if (serving->connections != nullptr) {
    if (request.Valid()) {
      serving->connections->OnMessage(call_->peer(), static_cast<int64_t>(request.Length()));
    } else {
      serving->connections->OnAbandoned(call_->peer());
    }
  }
  if (!request.Valid()) {
    Refuse(MalformedRequest(vllm_pb::GenerateRequest::descriptor()->full_name()));
    return;
  }
  const absl::StatusOr<WorkerPool::Ticket> ticket = serving->workers->PostAdmission(
      static_cast<int64_t>(request.Length()), [call = shared_from_this()] { call->Begin(); });
  if (!ticket.ok()) Refuse(ticket.status());
}

GatewayCall::GatewayCall(GatewayContext* gateway, grpc::CallbackServerContext* call,
                         const grpc::ByteBuffer& request)
    : gateway_(gateway),
      call_(call),
      served_name_(gateway->serving->model.more_names.OfAuthority(AuthorityOf(*call))),
      peeked_id_(request.Valid() ? PeekRequestId(request) : ""),
      request_bytes_(request) {}

// ---- from bytes to samples, on a worker ----

void GatewayCall::Begin() {
  absl::Status status;
  const bool done = GuardMemory("reading a gateway's call", [&] {
    absl::StatusOr<GatewayRequest> request = Read();
    status = request.status();
    if (status.ok()) MakeSamples(*std::move(request));
  });
  if (!done) status = gateway_->serving->out_of_memory;
  if (status.ok()) {
    BeginSamples();
  } else {
    Refuse(std::move(status));
  }
}

absl::StatusOr<GatewayRequest> GatewayCall::Read() {
  grpc::ByteBuffer bytes;
  {
    std::lock_guard lock(mutex_);
    if (cancelled_) return absl::CancelledError("the client has gone");
    bytes.Swap(&request_bytes_);
  }
  vllm_pb::GenerateRequest proto;
  if (!grpc::SerializationTraits<vllm_pb::GenerateRequest>::Deserialize(&bytes, &proto).ok()) {
    return MalformedRequest(proto.GetDescriptor()->full_name());
  }
  bytes.Clear();
  SWAA_ASSIGN_OR_RETURN(
      GatewayRequest read,
      ReadGatewayRequest(&proto, UnitOf(*call_), gateway_->serving->model, gateway_->tail));
  if (served_name_ == nullptr) return read;
  for (v1::GenerateRequest& sample : read.samples) sample.set_model(served_name_->name);
  return read;
}

void GatewayCall::MakeSamples(GatewayRequest request) {
  std::vector<std::string> ids;
  for (uint32_t index = 0; index < request.samples.size(); ++index) {
    samples_.push_back(
        std::make_unique<Sample>(this, std::move(request.samples[index]),
                                 SampleAnswer::Options{.index = index,
                                                       .stream = request.stream,
                                                       .prompt_logprobs = request.prompt_logprobs,
                                                       .silent_stops = request.silent_stops}));
    ids.push_back(samples_.back()->id());
  }
  gateway_->calls.Add(this, request.id, std::move(ids));
}

void GatewayCall::BeginSamples() {
  bool cancelled = false;
  {
    std::lock_guard lock(mutex_);
    live_samples_ = samples_.size();
    begun_ = true;
    cancelled = cancelled_;
  }
  // Those that began may all be done before the last has begun.
  const std::shared_ptr<GatewayCall> alive = shared_from_this();
  if (cancelled) CancelSamples();
  for (const auto& sample : samples_) sample->Begin();
}

void GatewayCall::Refuse(absl::Status status) {
  grpc::Status failure(static_cast<grpc::StatusCode>(status.code()), "");
  GuardMemory("what a refusal says", [&] { failure = TellRefusal(std::move(status)); });
  {
    std::lock_guard lock(mutex_);
    request_bytes_.Clear();
    failure_ = std::move(failure);
    may_finish_ = true;
  }
  WriteOrFinish();
}

grpc::Status GatewayCall::TellRefusal(absl::Status status) {
  ServingContext& serving = *gateway_->serving;
  if (status.code() == absl::StatusCode::kResourceExhausted) {
    status = WithRetryPushback(status,
                               absl::ToInt64Milliseconds(serving.drain_rate.NextWait(SteadyNow())));
  }
  RequestRecord record;
  record.id = peeked_id_;
  record.status = status;
  record.total = SteadyNow() - arrival_;
  serving.metrics->OnRequestEnd(record);
  LogRequest(record, serving.log_format);
  status = ForGateway(status);
  AddErrorTrailers(status, call_);
  return ToGrpcStatus(status);
}

// ---- what samples tell ----

void GatewayCall::OnAccepted() {
  {
    std::lock_guard lock(mutex_);
    if (std::exchange(accepted_, true) || failure_.has_value()) return;
    metadata_under_way_ = true;  // no write may begin before it
  }
  StartSendInitialMetadata();
}

void GatewayCall::OnMessage(Sample* sample, const vllm_pb::GenerateResponse& message) {
  bool own_buffer = false;
  grpc::ByteBuffer bytes;
  const grpc::Status status =
      grpc::SerializationTraits<vllm_pb::GenerateResponse>::Serialize(message, &bytes, &own_buffer);
  SWAA_CHECK(status.ok()) << status.error_message();
  {
    std::lock_guard lock(mutex_);
    if (failure_.has_value() || cancelled_) return;  // the sample is being cancelled
    // It may end meanwhile, and must still be there to be read on.
    outgoing_.push_back({std::move(bytes), sample});
    sample->AddHold();
  }
  WriteOrFinish();
}

void GatewayCall::OnSampleDone(const Sample& sample, const grpc::Status& status) {
  const std::shared_ptr<GatewayCall> alive = shared_from_this();
  bool failed = false;
  {
    std::lock_guard lock(mutex_);
    failed = !status.ok() && !failure_.has_value();
    if (failed) {
      failure_.emplace(status.error_code(), "");
      GuardMemory("what a failure says", [&] {
        failure_ = ForGateway(status, sample.context().GetServerTrailingMetadata(), call_);
      });
    }
    may_finish_ = --live_samples_ == 0;
  }
  if (failed) {
    CancelSamples();
    DropOutgoing();
  }
  WriteOrFinish();
}

// Of a call that has failed, or whose client has left: no more comes.
void GatewayCall::DropOutgoing() {
  for (;;) {
    Sample* sample = nullptr;
    {
      std::lock_guard lock(mutex_);
      if (outgoing_.empty()) return;
      sample = outgoing_.front().sample;
      outgoing_.pop_front();
    }
    sample->RemoveHold();
  }
}

void GatewayCall::FailForMemory() {
  {
    std::lock_guard lock(mutex_);
    if (failure_.has_value()) return;
    failure_.emplace(grpc::StatusCode::RESOURCE_EXHAUSTED, "");
  }
  CancelSamples();
  DropOutgoing();
}

void GatewayCall::CancelSamples() {
  for (const auto& sample : samples_) sample->Cancel();
}

// ---- the stream ----

void GatewayCall::OnSendInitialMetadataDone(bool ok) {
  if (!ok) OnCancel();
  {
    std::lock_guard lock(mutex_);
    metadata_under_way_ = false;
  }
  WriteOrFinish();
}

void GatewayCall::OnWriteDone(bool ok) {
  if (!ok) OnCancel();
  Sample* written = nullptr;
  bool read_on = false;
  {
    std::lock_guard lock(mutex_);
    write_under_way_ = false;
    written = writing_.sample;
    read_on = ok && !failure_.has_value() && !cancelled_;
  }
  if (read_on) written->ReadOn();
  written->RemoveHold();
  WriteOrFinish();
}

void GatewayCall::OnCancel() {
  {
    std::lock_guard lock(mutex_);
    if (std::exchange(cancelled_, true)) return;
    if (!begun_) return;  // the worker will see
  }
  CancelSamples();
  DropOutgoing();
}

absl::Time GatewayCall::WaitingSince() const {
  std::lock_guard lock(mutex_);
  return write_under_way_ && !cut_off_ ? write_began_ : absl::InfiniteFuture();
}

void GatewayCall::CutOff() {
  {
    std::lock_guard lock(mutex_);
    // The reader may have come back since it was looked at.
    if (!write_under_way_ || cut_off_ || cancelled_) return;
    cut_off_ = cutting_off_ = true;
  }
  // Resets the stream: the write fails. Outside the lock, as gRPC may call back from inside.
  call_->TryCancel();
  {
    std::lock_guard lock(mutex_);
    cutting_off_ = false;
  }
  WriteOrFinish();
}

void GatewayCall::WriteOrFinish() {
  bool write = false;
  bool finish = false;
  {
    std::lock_guard lock(mutex_);
    // Their ends come here again.
    if (write_under_way_ || metadata_under_way_ || cutting_off_) return;
    if (!outgoing_.empty()) {
      writing_ = std::move(outgoing_.front());
      outgoing_.pop_front();
      write = write_under_way_ = true;
      write_began_ = SteadyNow();
    } else if (may_finish_ && !finished_) {
      finish = finished_ = true;
    }
  }
  // Outside the lock: gRPC may call back from inside.
  if (write) StartWrite(&writing_.bytes);
  if (finish) FinishCall();
}

void GatewayCall::FinishCall() {
  gateway_->calls.Remove(this);
  grpc::Status status;
  {
    std::lock_guard lock(mutex_);
    if (failure_.has_value()) status = std::move(*failure_);
  }
  Finish(std::move(status));
}

void GatewayCall::OnDone() {
  gateway_->serving->slow_readers->Remove(this);
  gateway_->serving->live_streams.Remove();
  self_.reset();
}

}  // namespace swaa::server
