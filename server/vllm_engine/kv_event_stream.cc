// One SubscribeKvEvents call.

#include "server/vllm_engine/kv_event_stream.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include <grpcpp/impl/codegen/proto_utils.h>

#include "absl/time/clock.h"
#include "base/check.h"
#include "server/control/raw_call.h"
#include "server/generate/errors.h"
#include "server/observation/memory_guard.h"

namespace swaa::server {
namespace {

// How often the load is told where nothing happens.
constexpr std::chrono::milliseconds kHeartbeat{500};

}  // namespace

KvEventStream* KvEventStream::Start(GatewayContext* gateway, grpc::CallbackServerContext* call,
                                    const grpc::ByteBuffer& bytes) {
  std::shared_ptr<KvEventStream> stream(new KvEventStream(gateway));
  stream->self_ = stream;
  const auto request = ParseControlRequest<::smg::grpc::common::SubscribeKvEventsRequest>(bytes);
  absl::Status status = request.status();
  if (request.ok() && !GuardMemory("beginning a subscription",
                                   [&] { stream->Begin(request->start_sequence_number()); })) {
    status = gateway->serving->out_of_memory;
  }
  if (!status.ok()) {
    AddErrorTrailers(status, call);
    {
      std::lock_guard lock(stream->mutex_);
      stream->cancelled_ = stream->finished_ = true;
    }
    stream->Finish(ToGrpcStatus(status));
  }
  return stream.get();
}

void KvEventStream::Begin(uint64_t start) {
  cursor_ = gateway_->kv_events->Begin(start);
  gateway_->kv_events->Add(this, [this] { Wake(); });
  {
    std::lock_guard lock(mutex_);
    SetAlarm();
  }
  Wake();
}

void KvEventStream::SetAlarm() {
  if (cancelled_) return;
  alarm_set_ = true;
  // The stream lives as long as an alarm is set.
  alarm_.Set(std::chrono::system_clock::now() + kHeartbeat, [this](bool) { OnAlarm(); });
}

void KvEventStream::OnAlarm() {
  const std::shared_ptr<KvEventStream> alive = shared_from_this();
  {
    std::lock_guard lock(mutex_);
    alarm_set_ = false;
    load_is_due_ = true;
    SetAlarm();
  }
  Wake();
}

void KvEventStream::Wake() {
  {
    std::lock_guard lock(mutex_);
    woken_ = true;
    if (pumping_ || write_under_way_ || finished_) return;
    pumping_ = true;
  }
  gateway_->serving->workers->PostStreaming(shared_from_this());
}

void KvEventStream::RunOnWorker() {
  if (GuardMemory("telling a subscriber", [this] { Pump(); })) return;
  std::lock_guard lock(mutex_);
  pumping_ = false;  // the next heartbeat tries again
}

void KvEventStream::Pump() {
  std::optional<KvEventLog::Batch> batch;
  while (!batch.has_value()) {
    bool finish = false;
    bool load_is_due = false;
    {
      std::lock_guard lock(mutex_);
      finish = finished_ = cancelled_ && !alarm_set_;
      pumping_ = woken_ && !cancelled_;
      if (!finish && !pumping_) return;
      woken_ = false;
      load_is_due = load_is_due_;
    }
    if (finish) return Finish(grpc::Status::CANCELLED);
    batch = gateway_->kv_events->Next(&cursor_);
    if (!batch.has_value() && load_is_due) {
      batch.emplace();
      batch->set_sequence_number(last_sequence_);
      batch->mutable_load()->set_load_only(true);
    }
  }
  Write(&*batch);
}

void KvEventStream::Write(KvEventLog::Batch* batch) {
  last_sequence_ = batch->sequence_number();
  batch->set_timestamp(absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()));
  FillLoad(batch->mutable_load());
  writing_.Clear();  // of the last message
  bool own_buffer = false;
  const grpc::Status status =
      grpc::SerializationTraits<KvEventLog::Batch>::Serialize(*batch, &writing_, &own_buffer);
  SWAA_CHECK(status.ok()) << status.error_message();
  {
    std::lock_guard lock(mutex_);
    load_is_due_ = false;
    write_under_way_ = true;
    pumping_ = false;
  }
  StartWrite(&writing_);
}

void KvEventStream::FillLoad(::smg::grpc::common::EngineLoad* out) {
  const ServingContext& serving = *gateway_->serving;
  const EngineLoad load = serving.engine->Load();
  const AdmissionLoad unread = serving.workers->admission_load();
  out->set_running_requests(static_cast<uint32_t>(load.running));
  out->set_waiting_requests(static_cast<uint32_t>(load.queued + unread.waiting + unread.running));
  out->set_token_usage(static_cast<double>(load.used_pages) /
                       static_cast<double>(std::max<int64_t>(load.total_pages, 1)));
  out->set_max_running_requests(static_cast<uint32_t>(serving.engine_options.max_running_requests));
  out->set_sample(++samples_);
}

void KvEventStream::OnWriteDone(bool ok) {
  if (!ok) OnCancel();
  {
    std::lock_guard lock(mutex_);
    write_under_way_ = false;
  }
  Wake();
}

void KvEventStream::OnCancel() {
  {
    std::lock_guard lock(mutex_);
    cancelled_ = true;
    if (alarm_set_) alarm_.Cancel();
  }
  Wake();
}

void KvEventStream::OnDone() {
  gateway_->kv_events->Remove(this);
  self_.reset();
}

}  // namespace swaa::server
