// One Generate call, from its bytes to its last event.
//
// Threads: gRPC's callback threads call the reactor's methods and the engine's thread calls the
// sink's; both only note what happened and wake the pump. The pump runs on a worker, once at a time
// for a stream: it turns events into messages and keeps at most one write under way.

#ifndef SWAA_SERVER_GENERATE_GENERATE_STREAM_H_
#define SWAA_SERVER_GENERATE_GENERATE_STREAM_H_

#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/generation.h"
#include "server/access/caller_usage.h"
#include "server/generate/admission.h"
#include "server/generate/delta_builder.h"
#include "server/generate/pending_admissions.h"
#include "server/generate/serving_context.h"
#include "server/generate/steady_time.h"
#include "swaa/v1/generation.pb.h"

namespace swaa::server {

// Owns itself from Start until gRPC is done with it and the engine has let go of it.
class GenerateStream final : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                             public GenerationSink,
                             public WatchedStream,
                             public PendingAdmission,
                             public CallerUsage::Waiter,
                             public WorkerPool::StreamingTask,
                             public std::enable_shared_from_this<GenerateStream> {
 public:
  // `serving` outlives every stream; `call` lives until OnDone, as gRPC has it. Throws bad_alloc
  // where there is not the memory for a stream, and then nothing is left of it.
  static GenerateStream* Start(ServingContext* serving, grpc::CallbackServerContext* call,
                               const grpc::ByteBuffer& request);

  // grpc::ServerWriteReactor.
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  // GenerationSink.
  void OnAccepted() override;
  void OnPromptLogprobs(int32_t first_position, std::vector<ScoredToken> tokens) override;
  void OnTokens(std::vector<OutputToken> tokens) override;
  void OnFinished(const GenerationResult& result) override;
  void OnFailed(const absl::Status& status, const GenerationStats& stats) override;

  // WatchedStream.
  absl::Time WaitingSince() const override;
  void CutOff() override;

  // PendingAdmission.
  bool AbortAdmission() override;

  // CallerUsage::Waiter.
  void OnTurn() override;

  // WorkerPool::StreamingTask: what was noted by other threads is done.
  void RunOnWorker() override;

 private:
  struct AcceptedEvent {};
  struct PromptLogprobsEvent {
    int32_t first_position;
    std::vector<ScoredToken> tokens;
  };
  struct TokensEvent {
    std::vector<OutputToken> tokens;
    absl::Time at;
  };
  struct FailedEvent {
    absl::Status status;
    GenerationStats stats;
    bool by_engine = false;  // and yet without a reason
  };
  using Event =
      std::variant<AcceptedEvent, PromptLogprobsEvent, TokensEvent, GenerationResult, FailedEvent>;

  // What an event costs in the buffer, without tokens; an estimate.
  static constexpr size_t kEventBytes = 128;

  GenerateStream(ServingContext* serving, grpc::CallbackServerContext* call,
                 const grpc::ByteBuffer& request);

  // What the engine's refusals are called. At the door it is short of places in the queue alone,
  // later of the device's memory: `exhausted` says which.
  static absl::Status NameEngineError(const absl::Status& status, const char* exhausted);

  // Queues the admission, or refuses.
  void Begin();
  // The message did not come whole: its client has left, or sent none.
  void RefuseWithoutMessage();
  // On a worker: everything up to the engine's queue. A failure becomes a FailedEvent.
  void Admit();
  absl::Status TryAdmit();
  // To the engine, or, where its caller has all its places in use, to wait for its turn.
  absl::Status SubmitInTurn(GenerationRequest request);
  absl::Status SubmitToEngine();
  // Runs a part of the admission; a failure, lack of memory too, becomes a FailedEvent.
  void RunAdmission(absl::FunctionRef<absl::Status()> part);
  // Why the request need not be worked on further, if so.
  absl::Status StillWanted() const;
  // Ends the request while it waits to be read, or for its turn; false: it does not, any more.
  bool LeaveQueue(absl::Status status);
  void Fail(absl::Status status);

  void Push(Event event, size_t bytes);
  // The last event, of which the first counts. Takes no memory.
  void PushEnd(Event event);
  // Events are lost by this, and what is left is the end.
  void DropEvents() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DropForMemory() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SchedulePump() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // On a worker.
  void PumpEvents();
  // Memory ran out in the pump: nothing more is sent but the status.
  void GiveUp();
  bool TakeEvents(std::deque<Event>* events);
  std::optional<Event> TakeEnd();
  void Handle(Event event);
  void HandleTokens(const TokensEvent& event);
  void CountTokens(const TokensEvent& event);
  void HandleResult(const GenerationResult& result, std::vector<v1::GenerateResponse>* messages);
  void HandleFailure(const FailedEvent& event);
  void HandleEnd(absl::Status status, const GenerationStats& stats,
                 std::optional<FinishReason> reason);
  void StopWaiting();
  // Gives back what its caller may have so many of. Again: nothing.
  void LeaveCaller();
  // The reader will not get what is still to come.
  bool EventsWereDropped() const;
  void RecordEnd();
  void Record(const RequestRecord& record);
  void OfferShadow(const GenerationResult& result);
  // What the client is told when the engine says CANCELLED.
  absl::Status WhyCancelled(const absl::Status& status) const;
  void Serialize(std::vector<v1::GenerateResponse>* messages);
  void WriteOrFinish();
  void FinishCall();

  ServingContext* const serving_;
  grpc::CallbackServerContext* const call_;
  const absl::Time arrival_ = SteadyNow();
  const absl::Time deadline_;
  const bool has_message_;
  const std::string experiment_unit_;  // as the metadata names it
  const absl::StatusOr<std::shared_ptr<const Caller>> caller_;
  const std::optional<TraceContext> trace_;

  // Written by Admit before the engine knows the request; then read by the pump.
  Admission admission_;
  std::optional<DeltaBuilder> deltas_;

  // The pump's own.
  std::deque<grpc::ByteBuffer> outgoing_;
  grpc::ByteBuffer writing_;
  bool accepted_ = false;
  bool in_drain_rate_ = false;
  LiveCounts counted_;
  std::vector<int32_t> shadow_answer_;  // all output, if it is to be computed again
  absl::Time last_tokens_ = absl::InfinitePast();
  std::optional<absl::Status> end_;      // set: nothing more comes from the engine
  bool finished_ = false;                // Finish was called
  std::optional<RequestRecord> record_;  // with end_; told when the call is finished

  mutable std::mutex mutex_;
  grpc::ByteBuffer request_bytes_ ABSL_GUARDED_BY(mutex_);
  WorkerPool::Ticket ticket_ ABSL_GUARDED_BY(mutex_);
  bool aborted_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<Event> events_ ABSL_GUARDED_BY(mutex_);
  std::optional<Event> end_event_ ABSL_GUARDED_BY(mutex_);  // comes behind them
  size_t event_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool pump_scheduled_ ABSL_GUARDED_BY(mutex_) = false;
  bool write_under_way_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Time write_began_ ABSL_GUARDED_BY(mutex_);
  bool undelivered_ ABSL_GUARDED_BY(mutex_) = false;  // a message did not reach the client
  bool cut_off_ ABSL_GUARDED_BY(mutex_) = false;
  bool cutting_off_ ABSL_GUARDED_BY(mutex_) = false;  // the call must not be finished meanwhile
  std::optional<GenerationRequest> in_turn_ ABSL_GUARDED_BY(mutex_);  // ready for the engine
  bool turn_came_ ABSL_GUARDED_BY(mutex_) = false;                    // and it is to be submitted
  bool waits_ ABSL_GUARDED_BY(mutex_) = false;                        // as CallerUsage has it
  bool has_place_ ABSL_GUARDED_BY(mutex_) = false;                    // likewise
  bool submitted_ ABSL_GUARDED_BY(mutex_) = false;
  bool client_gone_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Time gone_at_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  bool dropped_ ABSL_GUARDED_BY(mutex_) = false;  // events were: they overflowed, or
  bool out_of_memory_ ABSL_GUARDED_BY(mutex_) = false;
  bool drop_cancelled_ ABSL_GUARDED_BY(mutex_) = false;

  std::shared_ptr<GenerateStream> self_;  // until OnDone
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_GENERATE_GENERATE_STREAM_H_
