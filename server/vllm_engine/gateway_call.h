// One Generate call of a gateway: a request to InferenceService for each of its samples, and their
// answers in one stream.
//
// Threads: gRPC's callback threads call the reactors' methods; a worker parses the request and
// begins the samples'. A sample is read on when its last message is written, so that a gateway that
// does not read is the samples' slow reader.

#ifndef SWAA_SERVER_VLLM_ENGINE_GATEWAY_CALL_H_
#define SWAA_SERVER_VLLM_ENGINE_GATEWAY_CALL_H_

#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/generate/slow_reader_watch.h"
#include "server/generate/steady_time.h"
#include "server/vllm_engine/gateway_context.h"
#include "server/vllm_engine/gateway_request.h"
#include "server/vllm_engine/sample_answer.h"

namespace swaa::server {

// Owns itself from Start until gRPC is done with it.
class GatewayCall final : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                          public WatchedStream,
                          public std::enable_shared_from_this<GatewayCall> {
 public:
  // `gateway` outlives every call; `call` lives until OnDone, as gRPC has it.
  static GatewayCall* Start(GatewayContext* gateway, grpc::CallbackServerContext* call,
                            const grpc::ByteBuffer& request);

  // grpc::ServerWriteReactor.
  void OnSendInitialMetadataDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  // WatchedStream.
  absl::Time WaitingSince() const override;
  void CutOff() override;

 private:
  // A request to InferenceService.
  class Sample;
  // Its sample is held until it is written or dropped.
  struct Outgoing {
    grpc::ByteBuffer bytes;
    Sample* sample;
  };

  GatewayCall(GatewayContext* gateway, grpc::CallbackServerContext* call,
              const grpc::ByteBuffer& request);

  // To a worker, or refuses.
  void Queue(const grpc::ByteBuffer& request);
  // On a worker.
  void Begin();
  absl::StatusOr<GatewayRequest> Read();
  void MakeSamples(GatewayRequest request);
  void BeginSamples();
  // Before any sample began.
  void Refuse(absl::Status status);
  grpc::Status TellRefusal(absl::Status status);

  // What samples tell.
  void OnAccepted();
  void OnMessage(Sample* sample, const vllm_pb::GenerateResponse& message);
  void OnSampleDone(const Sample& sample, const grpc::Status& status);

  // Memory ran out: what came is lost, and so the answer.
  void FailForMemory();
  void CancelSamples();
  void DropOutgoing();
  void WriteOrFinish();
  void FinishCall();

  GatewayContext* const gateway_;
  grpc::CallbackServerContext* const call_;
  const absl::Time arrival_ = SteadyNow();
  const ServedName* const served_name_;           // by which it came; null: the model's own
  const std::string peeked_id_;                   // for the log of a refusal
  std::vector<std::unique_ptr<Sample>> samples_;  // written before they begin
  Outgoing writing_;

  mutable std::mutex mutex_;
  grpc::ByteBuffer request_bytes_ ABSL_GUARDED_BY(mutex_);
  bool begun_ ABSL_GUARDED_BY(mutex_) = false;  // samples_ is complete
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool accepted_ ABSL_GUARDED_BY(mutex_) = false;
  bool metadata_under_way_ ABSL_GUARDED_BY(mutex_) = false;
  size_t live_samples_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<Outgoing> outgoing_ ABSL_GUARDED_BY(mutex_);
  bool write_under_way_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Time write_began_ ABSL_GUARDED_BY(mutex_);
  bool cut_off_ ABSL_GUARDED_BY(mutex_) = false;
  bool cutting_off_ ABSL_GUARDED_BY(mutex_) = false;  // the call must not be finished meanwhile
  std::optional<grpc::Status> failure_ ABSL_GUARDED_BY(mutex_);  // the first
  bool may_finish_ ABSL_GUARDED_BY(mutex_) = false;              // no sample lives any more
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;

  std::shared_ptr<GatewayCall> self_;  // until OnDone
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_VLLM_ENGINE_GATEWAY_CALL_H_
