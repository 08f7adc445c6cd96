// One SubscribeKvEvents call: batches as they are made, each with the load, and the load alone
// where nothing happens.

#ifndef SWAA_SERVER_VLLM_ENGINE_KV_EVENT_STREAM_H_
#define SWAA_SERVER_VLLM_ENGINE_KV_EVENT_STREAM_H_

#include <cstdint>
#include <memory>
#include <mutex>

#include <grpcpp/alarm.h>
#include <grpcpp/grpcpp.h>

#include "absl/base/thread_annotations.h"
#include "server/generate/worker_pool.h"
#include "server/vllm_engine/gateway_context.h"
#include "server/vllm_engine/kv_event_log.h"

namespace swaa::server {

// Owns itself from Start until gRPC is done with it. Threads: the log and the clock wake the pump,
// which runs on a worker.
class KvEventStream final : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                            public WorkerPool::StreamingTask,
                            public std::enable_shared_from_this<KvEventStream> {
 public:
  // `gateway` outlives every call.
  static KvEventStream* Start(GatewayContext* gateway, grpc::CallbackServerContext* call,
                              const grpc::ByteBuffer& request);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;
  void RunOnWorker() override;

 private:
  explicit KvEventStream(GatewayContext* gateway) : gateway_(gateway) {}

  void Begin(uint64_t start);
  void SetAlarm() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnAlarm();
  // Has the pump run soon.
  void Wake();
  void Pump();
  void Write(KvEventLog::Batch* batch);
  void FillLoad(::smg::grpc::common::EngineLoad* out);

  GatewayContext* const gateway_;
  grpc::Alarm alarm_;
  // The pump's own.
  KvEventLog::Cursor cursor_;
  uint64_t last_sequence_ = 0;
  uint64_t samples_ = 0;
  grpc::ByteBuffer writing_;

  std::mutex mutex_;
  bool woken_ ABSL_GUARDED_BY(mutex_) = false;    // since the pump last looked
  bool pumping_ ABSL_GUARDED_BY(mutex_) = false;  // or about to
  bool write_under_way_ ABSL_GUARDED_BY(mutex_) = false;
  bool load_is_due_ ABSL_GUARDED_BY(mutex_) = false;
  bool alarm_set_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;

  std::shared_ptr<KvEventStream> self_;  // until OnDone
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_VLLM_ENGINE_KV_EVENT_STREAM_H_
